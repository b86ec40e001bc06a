/* Disassembly, by Zydis. */
#include <stdio.h>
#include <Zydis/Zydis.h>
#include "base/base.h"
#include "debug/disasm.h"

static bool decoder_for(unsigned bits, ZydisDecoder *d)
{
	static const struct {
		unsigned bits;
		ZydisMachineMode mode;
		ZydisStackWidth stack;
	} modes[] = {{64, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64},
		     {32, ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32},
		     {16, ZYDIS_MACHINE_MODE_LONG_COMPAT_16, ZYDIS_STACK_WIDTH_16}};

	for (u32 i = 0; i < ARRAY_SIZE(modes); i++)
		if (modes[i].bits == bits)
			return ZYAN_SUCCESS(ZydisDecoderInit(d, modes[i].mode, modes[i].stack));
	return false;
}

int disasm_one(unsigned bits, const u8 *code, size_t n, u64 pc, char *text, size_t size)
{
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction insn;
	ZydisFormatter formatter;
	ZydisDecoder decoder;

	if (size)
		snprintf(text, size, "(bad)");
	if (!decoder_for(bits, &decoder))
		return 0;
	if (ZYAN_FAILED(ZydisDecoderDecodeFull(&decoder, code, MIN(n, (size_t)DISASM_BYTES), &insn, operands)))
		return 0;
	if (ZYAN_FAILED(ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL)))
		return 0;
	ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_HEX_UPPERCASE, ZYAN_FALSE);
	/* addresses and numbers without leading zeros, as symbols and registers are printed elsewhere */
	ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_ADDR_PADDING_ABSOLUTE, ZYDIS_PADDING_DISABLED);
	ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_ADDR_PADDING_RELATIVE, ZYDIS_PADDING_DISABLED);
	ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_DISP_PADDING, ZYDIS_PADDING_DISABLED);
	ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_IMM_PADDING, ZYDIS_PADDING_DISABLED);
	if (ZYAN_FAILED(ZydisFormatterFormatInstruction(&formatter, &insn, operands, insn.operand_count_visible, text, size, pc,
							NULL)))
		snprintf(text, size, "(too long to print)");
	return insn.length;
}
