/* `rserve run --check`: everything that can be known without running. */
#pragma once

#include "cmd/serve.h"
#include "core/base/error.h"

struct rs_config;

/* Takes `config`. With `import` a node without HTTP builds each Python application, asked over the
 * same messages that a head uses. Prints the deployments with the source of each value. Returns an
 * exit status (0, or 2 when something is wrong and was said), or -1 with `err`. */
RS_MUST_CHECK int rs_check(struct rs_config *config, const struct rs_serve_options *options,
                           bool import, struct rs_error *err);
