# A guest for debuggers: enters 64-bit mode from PVH's 32-bit entry, starts a second processor, calls C.
	.section .note, "a", @note
	.balign	4
	.long	4, 4, 18		# XEN_ELFNOTE_PHYS32_ENTRY
	.asciz	"Xen"
	.long	start

	.set	CODE64, 0x08
	.set	DATA, 0x10
	.set	TSS, 0x28		# user data 0x18|3, user code 0x20|3: in SYSRET's order

	.text
	.code32
	.globl	start
start:
	cli
	mov	$boot_stack_end, %esp
	mov	$pd, %edi		# 1 GiB in pages of 2 MiB, user may all
	mov	$0x87, %eax
1:	mov	%eax, (%edi)
	movl	$0, 4(%edi)
	add	$0x200000, %eax
	add	$8, %edi
	cmp	$pd + 4096, %edi
	jb	1b
	movl	$pd + 7, pdpt
	movl	$apic_pd + 7, pdpt + 3 * 8	# the local APIC
	movl	$0xfee00093, apic_pd + 0x1f7 * 8
	movl	$pdpt + 7, pml4
	call	enter_long
	ljmp	$CODE64, $start64

# Paging and long mode; used by both processors.
enter_long:
	mov	$0x620, %eax		# PAE, OSFXSR, OSXMMEXCPT
	mov	%eax, %cr4
	mov	$pml4, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx
	rdmsr
	or	$0x101, %eax		# LME, SCE
	wrmsr
	mov	$0x80010033, %eax
	mov	%eax, %cr0
	lgdt	gdt_pointer
	ret

	.code64
start64:
	mov	$DATA, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	xor	%eax, %eax
	mov	%eax, %fs
	mov	%eax, %gs
	lidt	idt_pointer(%rip)
	mov	$boot_stack_end, %rsp
	xor	%ebp, %ebp
	call	guest_main
1:	hlt
	jmp	1b

# ---- the second processor: real mode, at 0x8000 ----
	.globl	ap_start, ap_start_end
	.code16
ap_start:
	cli
	xor	%ax, %ax
	mov	%ax, %ds
	lgdtl	ap_gdt_pointer - ap_start + 0x8000
	mov	$0x33, %eax
	mov	%eax, %cr0
	ljmpl	$0x38, $ap_start32
	.balign	8
ap_gdt_pointer:
	.word	gdt_end - gdt - 1
	.long	gdt
ap_start_end:
	.code32
ap_start32:
	mov	$DATA, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	$ap_stack_end, %esp
	call	enter_long
	ljmp	$CODE64, $ap_start64
	.code64
ap_start64:
	mov	$ap_stack_end, %rsp
	lidt	idt_pointer(%rip)
	xor	%ebp, %ebp
	call	ap_main

# ---- system calls: the kernel's stack is the boot stack's lower part ----
	.globl	syscall_entry
syscall_entry:
	mov	%rsp, user_rsp(%rip)
	mov	$syscall_stack_end, %rsp
	push	%rcx
	push	%r11
	call	do_syscall
	.globl	syscall_return
syscall_return:
	pop	%r11
	pop	%rcx
	mov	user_rsp(%rip), %rsp
	sysretq

# enter_user(rip, rsp): iretq to ring 3; comes back by system call 0
	.globl	enter_user
enter_user:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	mov	%rsp, kernel_rsp(%rip)
	push	$0x1b
	push	%rsi
	push	$0x202
	push	$0x23
	push	%rdi
	.globl	iret_to_user
iret_to_user:
	iretq
	.globl	leave_user
leave_user:
	mov	kernel_rsp(%rip), %rsp
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	sti
	ret

	.globl	user_code, user_syscall, user_after
user_code:
	mov	$1, %eax
user_syscall:
	syscall
user_after:
	inc	%rbx
	int	$0x80
	dec	%rbx
	xor	%eax, %eax
	syscall

# ---- interrupts ----
	.macro	handler name, fn
	.globl	\name
\name:
	push	%rax
	push	%rcx
	push	%rdx
	push	%rsi
	push	%rdi
	push	%r8
	push	%r9
	push	%r10
	push	%r11
	cld
	call	\fn
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rdi
	pop	%rsi
	pop	%rdx
	pop	%rcx
	pop	%rax
	iretq
	.endm
	handler	timer_entry, on_timer
	handler	breakpoint_entry, on_breakpoint
	handler	soft_entry, on_soft_interrupt

	.globl	own_int3
own_int3:
	int3
	.globl	after_own_int3
after_own_int3:
	ret

	.data
	.balign	8
gdt:	.quad	0
	.quad	0x00af9b000000ffff	# 08: 64-bit code
	.quad	0x00cf93000000ffff	# 10: data
	.quad	0x00cff3000000ffff	# 18: user data
	.quad	0x00affb000000ffff	# 20: user code
	.globl	gdt_tss
gdt_tss:
	.quad	0, 0			# 28: TSS
	.quad	0x00cf9b000000ffff	# 38: 32-bit code
gdt_end:
gdt_pointer:
	.word	gdt_end - gdt - 1
	.quad	gdt
	.globl	idt_pointer
	.balign	8
idt_pointer:
	.word	4095
	.quad	idt
	.bss
	.globl	idt, ap_stack_end, syscall_stack_end
	.balign	4096
pml4:	.skip	4096
pdpt:	.skip	4096
pd:	.skip	4096
apic_pd:.skip	4096
idt:	.skip	4096
boot_stack:
	.skip	8192
boot_stack_end:
	.skip	8192
ap_stack_end:
	.skip	8192
syscall_stack_end:
user_rsp:
	.quad	0
kernel_rsp:
	.quad	0
