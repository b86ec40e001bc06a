/* Entry and interrupt stubs of the built-in guest (Multiboot Specification 0.6.96, 3.1 and 3.2). */
	.set MAGIC, 0x1badb002
	.set FLAGS, 0x2		/* memory map wanted */

	.section .multiboot, "a"
	.balign 4
	.long MAGIC, FLAGS, -(MAGIC + FLAGS)

	.text
	.global _start
_start:
	cld
	movl $stack_top, %esp
	lgdt gdtr
	ljmp $8, $1f
1:	movl $16, %ecx
	movl %ecx, %ds
	movl %ecx, %es
	movl %ecx, %fs
	movl %ecx, %gs
	movl %ecx, %ss
	/* 3.2: EFLAGS and the FPU are the kernel's to set up. CR0: MP, NE; not EM, TS. CR4: OSFXSR, OSXMMEXCPT */
	pushl $2
	popfl
	movl %cr0, %ecx
	andl $~0xc, %ecx
	orl $0x22, %ecx
	movl %ecx, %cr0
	movl %cr4, %ecx
	orl $0x600, %ecx
	movl %ecx, %cr4
	fninit
	subl $8, %esp		/* the ABI: aligned to 16 before a call */
	pushl %ebx		/* multiboot information */
	pushl %eax		/* 0x2badb002 */
	call builtin_main
	cli
2:	hlt
	jmp 2b

/* Exceptions and the timer come to interrupt(vector, error code, EIP). */
	.set vector, 0
	.rept 33
	.balign 16
	.if vector == 0
	.global stubs
stubs:
	.endif
	.if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21)
	pushl $0
	.endif
	pushl $vector
	jmp common
	.set vector, vector + 1
	.endr

common:
	pushal
	cld
	pushl 40(%esp)		/* EIP */
	pushl 40(%esp)		/* error code */
	pushl 40(%esp)		/* vector */
	call interrupt
	addl $12, %esp
	popal
	addl $8, %esp
	iretl

	.section .rodata
	.balign 8
gdt:	.quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
gdtr:	.word . - gdt - 1
	.long gdt

	.bss
	.balign 16
	.skip 16384
stack_top:
	.section .note.GNU-stack, "", @progbits
