/* JSON values written as YAML, in the form in which PyYAML's safe_dump(sort_keys=False) writes them:
 * block style, texts quoted only where they would read as something else ('' for the empty one),
 * texts of several lines as literal blocks.
 */
#pragma once

#include "core/base/buf.h"

#include <jansson.h>

/* Appends one document; keys in their order. `value` is not changed. */
void rs_yaml_dump(struct rs_buf *out, json_t *value);
