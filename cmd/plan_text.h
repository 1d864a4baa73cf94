/* A plan (GET /api/v1/plan/{plan}) as people read it: a line for each deployment, what causes it below,
 * and what it comes to at the end.
 */
#pragma once

#include "core/base/buf.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* No line is longer than `width` columns (at least 60). `color`: with escapes of a terminal. */
void rs_deploy_plan_print(const json_t *plan, size_t width, bool color, struct rs_buf *out);
/* The configurations of GET .../history. `width` as above. */
void rs_history_print(const json_t *history, size_t width, struct rs_buf *out);
