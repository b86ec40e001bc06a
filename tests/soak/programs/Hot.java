import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;

/** C1, C2, deoptimisation, exceptions, garbage collection, threads. */
public class Hot {
	interface Shape { double area(); }
	record Square(double a) implements Shape { public double area() { return a * a; } }
	record Circle(double r) implements Shape { public double area() { return 3 * r * r; } }

	static long sieve(int n) {
		boolean[] c = new boolean[n + 1];
		long count = 0;
		for (int i = 2; i <= n; i++) {
			if (c[i]) continue;
			count++;
			for (long j = (long) i * i; j <= n; j += i) c[(int) j] = true;
		}
		return count;
	}

	static int caught(Object[] o) {
		int n = 0;
		for (int i = 0; i < 20000; i++) {
			try {
				if (o[i % o.length].hashCode() == 12345678) n--;
			} catch (NullPointerException e) {
				n++;
			}
		}
		return n;
	}

	public static void main(String[] args) throws Exception {
		Shape[] shapes = new Shape[1000];
		for (int i = 0; i < shapes.length; i++) shapes[i] = i % 3 == 0 ? new Circle(i) : new Square(i);
		double area = 0;
		for (int k = 0; k < 300; k++) for (Shape s : shapes) area += s.area();
		Map<String, Integer> m = new TreeMap<>();
		for (int i = 0; i < 100000; i++) m.merge("k" + i * 31 % 997, i, Integer::sum);
		ExecutorService ex = Executors.newFixedThreadPool(4);
		List<Future<Long>> f = new ArrayList<>();
		for (int t = 0; t < 8; t++) { final int n = 200000 + t; f.add(ex.submit(() -> sieve(n))); }
		long primes = 0;
		for (Future<Long> x : f) primes += x.get();
		ex.shutdown();
		System.out.println(area + " " + m.get("k500") + " " + primes + " " + caught(new Object[]{"a", null, 3}) + " "
			+ IntStream.range(0, 200000).mapToObj(Integer::toString).filter(s -> s.contains("77")).count());
	}
}
