/* Figures as JSON, out of the text that Prometheus gets. Pure. */
#pragma once

#include <jansson.h>

/* [{"name", "type", "help", "samples": [{"name", "labels", "value"}]}], in the order of the text; a new
 * reference. `prefix`: only families whose name begins so; NULL: all. A line that is none is left out. */
json_t *rs_api_snapshot(const char *text, const char *prefix);
