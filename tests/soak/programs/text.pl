use strict;
my (%n, @l);
for my $i (1 .. 60000) { my $w = join '', map { chr(97 + ($i * $_ * 31) % 26) } 1 .. 4; $n{$w}++; push @l, $w if $i % 997 == 0 }
my $t = join ' ', sort keys %n;
my $c = () = $t =~ /\b([a-m]+)\b/g;
(my $u = $t) =~ s/(\w)(\w)/$2$1/g;
my $s = sprintf '%.6f', eval { my $x = 0; $x += sin($_) * log($_) for 1 .. 50000; $x };
print scalar(keys %n), " $c ", length $u, " ", unpack('%32C*', $u), " $s @l[0..3]\n";
