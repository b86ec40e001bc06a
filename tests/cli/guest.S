# A multiboot kernel whose first command-line letter says what it does: p power off, r reboot twice then power off, t triple fault,
# x debug exit, e echo the console, h halt for good. It prints "hello" first.
	.set MAGIC, 0x1badb002
	.code32
	.section .text
	.align 4
	.long MAGIC, 3, -(MAGIC + 3)
	.global _start
_start:
	mov $stack, %esp
	mov 16(%ebx), %esi		# multiboot info: cmdline
	mov $hello, %edi
	call print
	mov (%esi), %al
	cmp $'p', %al
	je poweroff
	cmp $'t', %al
	je triple
	cmp $'x', %al
	je debug_exit
	cmp $'e', %al
	je echo
	cmp $'r', %al
	je reboot
halt:
	hlt
	jmp halt

poweroff:				# PM1a control: SLP_TYP 5, SLP_EN
	mov $0x604, %dx
	mov $0x3400, %ax
	out %ax, %dx
	jmp halt

reboot:					# CMOS register 0x60 counts: RAM is cleared by a reset
	mov $0x60, %al
	out %al, $0x70
	in $0x71, %al
	cmp $2, %al
	je poweroff
	inc %al
	mov %al, %cl
	mov $0x60, %al
	out %al, $0x70
	mov %cl, %al
	out %al, $0x71
	mov $0xfe, %al
	out %al, $0x64
	jmp halt

triple:
	lidt null_idt
	int3

debug_exit:
	mov $0x21, %al
	out %al, $0xf4
	jmp halt

echo:					# polls the UART; q powers off
	mov $0x3fd, %dx
	in %dx, %al
	test $1, %al
	jz echo
	mov $0x3f8, %dx
	in %dx, %al
	cmp $'q', %al
	je poweroff
	inc %al
	out %al, %dx
	jmp echo

print:
	mov (%edi), %al
	test %al, %al
	jz 1f
	mov $0x3f8, %dx
	out %al, %dx
	inc %edi
	jmp print
1:	ret

hello:	.asciz "hello\n"
null_idt: .skip 6
	.align 16
	.skip 512
stack:
