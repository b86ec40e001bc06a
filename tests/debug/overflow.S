/*
 * A kernel with a bug that is hard to see: its stack lies right above its page tables, and a recursion is deeper than the stack. What goes
 * wrong is an access that has nothing to do with it.
 */
	.section .text, "ax"
	.code32
	.align 4
	.long 0x1badb002, 0, -0x1badb002
	.globl _start
	.type _start, @function
_start:
	movl $stack_end, %esp
	movl $page_table, %edi		# the first 2 MiB, in pages of 4 KiB
	movl $3, %eax
1:	movl %eax, (%edi)
	addl $0x1000, %eax
	addl $8, %edi
	cmpl $0x200003, %eax
	jne 1b
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
	ljmp $8, $main
	.size _start, . - _start

	.code64
	.globl main
	.type main, @function
main:
	xorl %eax, %eax
	movl %eax, %ds
	movl %eax, %ss
	xorl %ebp, %ebp
	movl $200, %edi
	call count_down
	call say_hello
	movl $0x2000, %eax		# ACPI: off
	movw $0x604, %dx
	outw %ax, %dx
	hlt
	.size main, . - main

# counts, the hard way
	.globl count_down
	.type count_down, @function
count_down:
	pushq %rbp
	movq %rsp, %rbp
	subq $16, %rsp
	movq $0, -8(%rbp)
	movq %rdi, -16(%rbp)
	testl %edi, %edi
	jz 1f
	decl %edi
	call count_down
1:	leave
	ret
	.size count_down, . - count_down

	.globl say_hello
	.type say_hello, @function
say_hello:
	pushq %rbp
	movq %rsp, %rbp
	movabsq $greeting, %rsi
	movw $0x3f8, %dx
1:	lodsb
	testb %al, %al
	jz 2f
	outb %al, %dx
	jmp 1b
2:	popq %rbp
	ret
	.size say_hello, . - say_hello

	.section .data, "aw"
	.align 8
gdt:	.quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
	.word . - gdt - 1
	.long gdt
	.align 4096
pml4:	.quad page_directory_pointers + 3
	.fill 511, 8, 0
	.globl page_directory_pointers, page_directory, page_table, stack, stack_end
page_directory_pointers:
	.quad page_directory + 3
	.fill 511, 8, 0
page_directory:
	.quad page_table + 3
	.fill 511, 8, 0
page_table:
	.fill 512, 8, 0
stack:	.fill 4096, 1, 0
stack_end:
	.align 4096
greeting:
	.asciz "hello, world\n"
