/* What an ingress refused, out of the text of its /metrics, for `rserve status`. Pure. */
#pragma once

#include <jansson.h>

/* Adds "refused": {CAUSE: number} under "rserve" of each application in `details` that the metrics name.
 * What cannot be read is left out. */
void rs_refused_add(json_t *details, const char *metrics);
