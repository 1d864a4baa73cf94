/* Every key that a configuration may hold: type, default, range, meaning. One set of tables decodes,
 * refuses, merges, compares and prints the reference page.
 */
#pragma once

#include <stdbool.h>
#include <stdio.h>

/* The reference of all keys: `rserve help config` at 80 columns, or the page docs/config.md. */
void rs_config_reference_print(FILE *out, bool markdown);
