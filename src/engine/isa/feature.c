/*
 * Where CPUID reports each instruction feature.
 */
#include "engine/isa/feature.h"

const struct insn_feature_bit insn_feature_bits[FEAT_COUNT] = {
#define FEATURE(name, leaf, subleaf, reg, bit) [FEAT_##name] = {leaf, subleaf, CPUID_##reg, bit},
    INSN_FEATURES(FEATURE)
#undef FEATURE
};

static const char *const feature_names[FEAT_COUNT] = {
#define FEATURE(name, leaf, subleaf, reg, bit) [FEAT_##name] = #name,
    INSN_FEATURES(FEATURE)
#undef FEATURE
};

const char *insn_feature_name(enum insn_feature feature)
{
	return (unsigned)feature < FEAT_COUNT ? feature_names[feature] : "?";
}
