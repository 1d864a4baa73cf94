/* How text stands in the Prometheus exposition. */
#pragma once

#include "core/base/buf.h"

#include <stdbool.h>

/* Backslash and newline escaped, with `quotes` quotes too; what is not UTF-8 is replaced. */
void rs_metrics_escape(struct rs_buf *out, const char *text, bool quotes);
