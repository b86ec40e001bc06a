STYLE_RUN := $(B)/tests/style/run
TESTS += $(STYLE_RUN)
# The check compiles headers, and all of src with clang, with the flags of the build.
$(STYLE_RUN): tests/style/check Makefile
	@mkdir -p $(@D)
	@printf '#!/bin/sh\nV_FLAGS="%s" E_FLAGS="%s" exec tests/style/check\n' '$(filter-out -MMD -MP $(SAN),$(V_CFLAGS))' \
		'$(filter-out -MMD -MP -fsanitize% -fno-sanitize%,$(E_CFLAGS))' >$@ && chmod +x $@
