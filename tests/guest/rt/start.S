# Entry of the test guests: 64-bit mode by the runner; sets up our own GDT, IDT, TSS, page tables.
	.text
	.globl _start
	.section .text.start, "ax"
_start:
	lea	stack_top(%rip), %rsp
	call	rt_init
	call	guest_main
	xor	%edi, %edi
	call	guest_exit

	.text
# One stub per vector; those without an error code push a zero.
	.macro	stub n
	.align	16
	.if	(\n == 8) || (\n >= 10 && \n <= 14) || (\n == 17) || (\n == 21)
	.else
	pushq	$0
	.endif
	pushq	$\n
	jmp	common
	.endm
	.align	16
	.globl	rt_stubs
rt_stubs:
	.altmacro
	.set	i, 0
	.rept	256
	stub	%i
	.set	i, i + 1
	.endr
	.noaltmacro
common:
	push	%rax
	push	%rbx
	push	%rcx
	push	%rdx
	push	%rsi
	push	%rdi
	push	%rbp
	push	%r8
	push	%r9
	push	%r10
	push	%r11
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	mov	%rsp, %rdi
	mov	%rsp, %rbp
	and	$-16, %rsp
	cld
	call	rt_trap
	mov	%rbp, %rsp
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rbp
	pop	%rdi
	pop	%rsi
	pop	%rdx
	pop	%rcx
	pop	%rbx
	pop	%rax
	add	$16, %rsp
	iretq

# u64 run_user(fn, arg): to CPL 3 and back through int 0x81
	.globl	run_user
run_user:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	mov	%rsp, user_kernel_rsp(%rip)
	mov	%rdi, %rax
	mov	%rsi, %rdi
	pushq	$(32 + 3)
	lea	user_stack_top(%rip), %rcx
	sub	$8, %rcx
	push	%rcx
	pushq	rt_user_flags(%rip)
	pushq	$(40 + 3)
	push	%rax
	iretq
	.globl	rt_user_done
rt_user_done:			# int 0x81 at CPL 3, value in rax
	mov	user_kernel_rsp(%rip), %rsp
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret

	.globl	rt_user_return
rt_user_return:
	mov	%rdi, %rax
	int	$0x81
	hlt

	.bss
	.align	4096
	.globl	user_kernel_rsp
user_kernel_rsp: .quad 0
	.align	16
	.skip	16384
	.globl	stack_top
stack_top:
	.skip	16384
	.globl	trap_stack_top
trap_stack_top:
	.skip	16384
	.globl	user_stack_top
user_stack_top:
	.skip	16

# Application processors: copied to 0x8000 (SIPI vector 8); each takes the next stack and calls ap_main(index).
	.text
	.globl	ap_start
	.globl	ap_end
ap_start:
	.code16
	cli
	xor	%ax, %ax
	mov	%ax, %ds
	lgdtl	0x8000 + (ap_gdtr - ap_start)
	mov	%cr0, %eax
	or	$1, %eax
	mov	%eax, %cr0
	ljmpl	$0x18, $0x8000 + (ap32 - ap_start)
	.code32
ap32:
	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	$0x620, %eax
	mov	%eax, %cr4
	mov	$rt_pml4, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx
	rdmsr
	or	$0x901, %eax
	wrmsr
	mov	$0x80010033, %eax
	mov	%eax, %cr0
	ljmp	$8, $ap64
	.align	8
ap_gdt:
	.quad	0, 0x00af9a000000ffff, 0x00cf92000000ffff, 0x00cf9a000000ffff
ap_gdtr:
	.word	31
	.long	0x8000 + (ap_gdt - ap_start)
ap_end:
	.code64
ap64:
	mov	$1, %edi
	lock xadd %edi, ap_next(%rip)
	mov	%edi, %eax
	shl	$12, %eax
	lea	ap_stacks(%rip), %rsp
	add	%rax, %rsp
	call	rt_ap
1:	hlt
	jmp	1b
	.data
ap_next: .long 1
	.bss
	.align	16
ap_stacks: .skip 8 * 4096
