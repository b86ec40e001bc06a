/* Thread-local storage as the program header says. See tls.h. */
#include <elf.h>
#include <sys/auxv.h>

#include "engine/lib/tls.h"

extern const Elf64_Ehdr __ehdr_start; /* of the linker; dl_iterate_phdr() wants the vDSO, which is unmapped */

u64 tls_size(void)
{
	const Elf64_Phdr *p = (const Elf64_Phdr *)((const u8 *)&__ehdr_start + __ehdr_start.e_phoff);
	u64 sum = 0;

	__asm__("" : "+r"(p)); /* the program headers lie behind what the sanitizers take for all of the object */
	for (unsigned i = 0; i < __ehdr_start.e_phnum; i++)
		if (p[i].p_type == PT_TLS)
			sum += p[i].p_memsz + p[i].p_align;
	return sum;
}

bool tls_can_wrfsbase(void)
{
	return getauxval(AT_HWCAP2) >> 1 & 1; /* HWCAP2_FSGSBASE; the C library keeps this one */
}
