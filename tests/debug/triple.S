/*
 * A kernel of one page that crashes as beginners' kernels do: it enters long mode, calls three functions deep, writes to an address that is
 * not mapped, and has no interrupt descriptors.
 */
	.section .text, "ax"
	.code32
	.align 4
	.long 0x1badb002, 0, -0x1badb002
	.globl _start
_start:
	movl $stack_end, %esp
	movl $pml4, %eax
	movl %eax, %cr3
	movl %cr4, %eax
	orl $0x20, %eax
	movl %eax, %cr4
	movl $0xc0000080, %ecx
	rdmsr
	orl $0x100, %eax
	wrmsr
	movl %cr0, %eax
	orl $0x80000000, %eax
	movl %eax, %cr0
	lgdt gdt_pointer
	ljmp $8, $start64

	.code64
	.globl start64
	.type start64, @function
start64:
	xorl %eax, %eax
	movl %eax, %ds
	movl %eax, %ss
	xorl %ebp, %ebp
	movl $100, %ecx
1:	addl $3, %eax
	decl %ecx
	jnz 1b
	call outer
	hlt
	.size start64, . - start64

	.globl outer
	.type outer, @function
outer:
	pushq %rbp
	movq %rsp, %rbp
	call inner
	popq %rbp
	ret
	.size outer, . - outer

	.globl inner
	.type inner, @function
inner:
	pushq %rbp
	movq %rsp, %rbp
	movabsq $0x123456789000, %rdi
	cmpq $0, %rdi
	je 2f
	call crash
2:	popq %rbp
	ret
	.size inner, . - inner

	.globl crash
	.type crash, @function
crash:
	pushq %rbp
	movq %rsp, %rbp
	movl $0xdead, %eax
	movq %rax, (%rdi)
	popq %rbp
	ret
	.size crash, . - crash

	.section .data, "aw"
	.align 8
gdt:	.quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
	.word . - gdt - 1
	.long gdt
	.align 4096
pml4:	.quad pdpt + 3
	.fill 511, 8, 0
pdpt:	.quad pd + 3
	.fill 511, 8, 0
pd:	.quad 0x83
	.fill 511, 8, 0
	.fill 4096, 1, 0
stack_end:
