# What the worked examples stand on: multiboot's 32-bit entry, then 64-bit mode with the first 4 MiB mapped one to one in small pages
# (so that each page has an entry of its own), a GDT with rings 0 and 3, a TSS, and an IDT of 64 vectors.
	.set MAGIC, 0x1badb002
	.set FLAGS, 0
	.section .multiboot, "a"
	.align 4
	.long MAGIC, FLAGS, -(MAGIC + FLAGS)

	.section .text
	.code32
	.global _start
_start:
	mov $stack_top, %esp
	movl $pdpt + 3 + 4, pml4	# present, writable, user
	movl $pd + 7, pdpt
	movl $pt + 7, pd
	movl $pt + 4096 + 7, pd + 8
	mov $pt, %edi
	mov $7, %eax
	mov $1024, %ecx
1:	mov %eax, (%edi)
	add $4096, %eax
	add $8, %edi
	loop 1b
	mov %cr4, %eax
	or $0x20, %eax			# PAE
	mov %eax, %cr4
	mov $pml4, %eax
	mov %eax, %cr3
	mov $0xc0000080, %ecx		# EFER: LME, SCE
	rdmsr
	or $0x101, %eax
	wrmsr
	mov %cr0, %eax
	or $0x80010000, %eax		# PG, WP
	mov %eax, %cr0
	lgdt gdt_pointer
	ljmp $0x08, $start64

	.code64
start64:
	mov $0x10, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	call learn_setup
	call learn_main
	mov $0x604, %edx		# power off: PM1a control, SLP_TYP 5, SLP_EN
	mov $0x3400, %eax
	out %ax, %dx
1:	hlt
	jmp 1b

# One entry for each vector; those with an error code have it already.
	.altmacro
	.macro entry n
	.align 16
	.if \n == 8 || (\n >= 10 && \n <= 14) || \n == 17
	nop
	nop
	.else
	push $0
	.endif
	push $\n
	jmp common
	.endm
	.align 16
	.global learn_entries
learn_entries:
	.set n, 0
	.rept 64
	entry %n
	.set n, n + 1
	.endr


common:
	push %rax
	push %rcx
	push %rdx
	push %rsi
	push %rdi
	push %r8
	push %r9
	push %r10
	push %r11
	push %rbx
	push %rbp
	mov %rsp, %rdi
	call learn_trap
	pop %rbp
	pop %rbx
	pop %r11
	pop %r10
	pop %r9
	pop %r8
	pop %rdi
	pop %rsi
	pop %rdx
	pop %rcx
	pop %rax
	add $16, %rsp
	iretq

# learn_user(function): runs it in ring 3 until it does int $0x30, whose handler comes back here by learn_back().
	.global learn_user, learn_back
learn_user:
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	mov %rsp, learn_kernel_sp
	mov %rsp, tss + 4		# RSP0
	push $0x23			# SS
	push $user_stack_top
	push $0x002			# RFLAGS: IF is 0, IOPL is 0
	push $0x1b			# CS
	push %rdi
	iretq
learn_back:
	mov learn_kernel_sp, %rsp
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	ret

	.section .data
	.align 16
	.global gdt, tss, learn_kernel_sp
gdt:	.quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00affb000000ffff, 0x00cff3000000ffff
gdt_tss: .quad 0, 0
gdt_pointer: .word . - gdt - 1
	.quad gdt
	.global gdt_tss
learn_kernel_sp: .quad 0
	.align 16
tss:	.skip 104

	.section .bss
	.align 4096
	.global pml4, pdpt, pd, pt
pml4:	.skip 4096
pdpt:	.skip 4096
pd:	.skip 4096
pt:	.skip 8192
	.skip 8192
stack_top:
	.skip 8192
user_stack_top:
