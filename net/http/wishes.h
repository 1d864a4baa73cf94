/* What a client's headers say about time and urgency. Pure.
 *
 * Units: ns. Text that is none of these is no wish: it is ignored, as Ray ignores it.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* "250": milliseconds, a whole number. 0: no wish. */
int64_t rs_http_timeout_ms(const char *value, size_t len);
/* "10S": up to 8 digits and H, M, S, m (ms), u (us) or n (ns), as gRPC has it. 0: no wish. */
int64_t rs_http_timeout_grpc(const char *value, size_t len);
/* One digit; -1: no wish. */
int rs_http_priority(const char *value, size_t len);
/* The sooner of two times or limits, of which 0 is none. */
int64_t rs_http_sooner(int64_t a, int64_t b);
