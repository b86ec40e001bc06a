# Each sensitive instruction a known number of times, in a loop that becomes hot: the list of events is known to the last one.
# 32-bit code without paging; tests/debug/explain.py has the counts.
	.set MAGIC, 0x1badb002
	.code32
	.section .text
	.align 4
	.long MAGIC, 0, -MAGIC
	.global _start
_start:
	mov $stack, %esp
	lgdt gdt_pointer		# 1
	ljmp $8, $1f			# 1
1:	mov $16, %eax
	mov %eax, %ds			# mov-to-sreg: 5 in all
	mov %eax, %es
	mov %eax, %fs
	mov %eax, %gs
	mov %eax, %ss
	mov $100, %ebp
again:
	cli				# 100 each
	pushf
	popf
	smsw %eax
	sgdt buffer
	sidt buffer
	sldt %eax
	str %eax
	mov %cs, %eax			# mov-from-sreg
	push %ds			# push-sreg
	pop %ds				# pop-sreg
	lar %ax, %ecx
	lsl %ax, %ecx
	verr %ax
	verw %ax
	xor %eax, %eax
	xor %ecx, %ecx
	cpuid
	rdtsc
	mov %cr0, %eax			# mov-from-cr
	mov %eax, %cr0			# mov-to-cr: 100
	mov %dr7, %eax
	clts
	mov $0x1b, %ecx
	rdmsr
	in $0x71, %al
	mov $5, %eax
	invlpg (%eax)
	dec %ebp
	jnz again
	mov $0x604, %edx
	mov $0x3400, %eax
	out %ax, %dx			# power off: not counted, it never ends
	hlt

	.align 8
gdt:	.quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_pointer: .word . - gdt - 1
	.long gdt
buffer:	.skip 16
	.align 16
	.skip 512
stack:
