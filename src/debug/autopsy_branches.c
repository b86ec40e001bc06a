/*
 * Branches from arrivals. The engine records the places that control came to; the jump that led there is found by reading the code on
 * from the place before. Code that has changed or is not mapped any more gives no answer, and an exception or interrupt is a jump too.
 */
#include <stdlib.h>
#include <Zydis/Zydis.h>
#include "debug/autopsy.h"
#include "debug/disasm.h"

enum { BLOCK_MAX = 800 /* bytes: longer than a block of the translator */ };

struct jump {
	u64 from;
	const char *kind; /* NULL: went straight on */
};

static bool decoder_for(unsigned bits, ZydisDecoder *d)
{
	if (bits == 64)
		return ZYAN_SUCCESS(ZydisDecoderInit(d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64));
	if (bits == 32)
		return ZYAN_SUCCESS(ZydisDecoderInit(d, ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32));
	return ZYAN_SUCCESS(ZydisDecoderInit(d, ZYDIS_MACHINE_MODE_LONG_COMPAT_16, ZYDIS_STACK_WIDTH_16));
}

static const char *kind_of(const ZydisDecodedInstruction *i)
{
	switch (i->meta.category) {
	case ZYDIS_CATEGORY_COND_BR:
		return "conditional jump";
	case ZYDIS_CATEGORY_UNCOND_BR:
		return "jump";
	case ZYDIS_CATEGORY_CALL:
		return "call";
	case ZYDIS_CATEGORY_RET:
		return i->mnemonic == ZYDIS_MNEMONIC_RET ? "return" : "iret";
	case ZYDIS_CATEGORY_SYSCALL:
	case ZYDIS_CATEGORY_SYSRET:
	case ZYDIS_CATEGORY_INTERRUPT:
		return ZydisMnemonicGetString(i->mnemonic);
	default:
		return NULL;
	}
}

/* The relative target of a direct jump; false: it has none. */
static bool direct(const ZydisDecodedInstruction *i, const ZydisDecodedOperand *op, u64 at, u64 *target)
{
	return i->operand_count_visible && op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && op[0].imm.is_relative &&
	       ZYAN_SUCCESS(ZydisCalcAbsoluteAddress(i, &op[0], at, target));
}

/* How control got from the beginning of a block to the next. */
static struct jump find_jump(const struct autopsy_vcpu *v, const ZydisDecoder *d, u64 begin, u64 next)
{
	u8 code[BLOCK_MAX];
	u64 n = inspect_read(v->view.in, begin, code, sizeof(code));

	for (u64 at = 0; at < n;) {
		ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
		ZydisDecodedInstruction i;
		u64 target = 0;
		const char *kind = NULL;

		if (ZYAN_FAILED(ZydisDecoderDecodeFull(d, code + at, n - at, &i, op)))
			break;
		kind = kind_of(&i);
		if (kind && (!direct(&i, op, begin + at, &target) || target == next))
			return (struct jump){begin + at, kind};
		at += i.length;
		if (begin + at == next)
			return (struct jump){0, NULL};
		if (kind && i.meta.category != ZYDIS_CATEGORY_COND_BR)
			break;
	}
	return (struct jump){begin, "exception or interrupt behind"};
}

/* A loop's jump is told of once, with how many times it came. */
static bool repeats(cJSON *list, const struct jump *b, u64 to)
{
	cJSON *last = list->child ? list->child->prev : NULL, *times = cJSON_GetObjectItem(last, "times");
	const char *from = cJSON_GetStringValue(cJSON_GetObjectItem(last, "from")), *there = cJSON_GetStringValue(cJSON_GetObjectItem(last, "to"));

	if (!from || !there || strtoull(from, NULL, 16) != b->from || strtoull(there, NULL, 16) != to)
		return false;
	if (times)
		cJSON_SetNumberValue(times, times->valuedouble + 1);
	else
		cJSON_AddNumberToObject(last, "times", 2);
	return true;
}

static cJSON *branch(const struct autopsy_vcpu *v, const struct jump *b, u64 to)
{
	cJSON *j = cJSON_CreateObject();

	autopsy_add_hex(j, "from", b->from);
	autopsy_add_symbol(j, "from_symbol", v, b->from);
	autopsy_add_hex(j, "to", to);
	autopsy_add_symbol(j, "to_symbol", v, to);
	cJSON_AddStringToObject(j, "kind", b->kind);
	return j;
}

cJSON *autopsy_branches(const struct autopsy_vcpu *v)
{
	cJSON *list = cJSON_CreateArray();
	ZydisDecoder d;
	int first = 0;

	if (!decoder_for(inspect_code_bits(&v->view.in->s), &d))
		return list;
	for (u32 i = 1; i < DOPPEL_ARRIVALS; i++) {
		u64 begin = v->record->at[i - 1], to = v->record->at[i];
		struct jump b;

		if (!begin)
			continue;
		b = find_jump(v, &d, begin, to);
		if (b.kind && !repeats(list, &b, to))
			cJSON_AddItemToArray(list, branch(v, &b, to));
	}
	for (first = cJSON_GetArraySize(list) - AUTOPSY_BRANCHES; first > 0; first--)
		cJSON_DeleteItemFromArray(list, 0);
	return list;
}
