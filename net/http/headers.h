/* Header fields in the form in which they travel: name NUL value NUL ..., names in lower case.
 *
 * Ownership: borrowed throughout. Broken input ends the walk early; nothing is read past the end.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct rs_http_headers {
    const char *at, *end;
    const char *name, *value; /* after a true rs_http_headers_next */
};

static inline struct rs_http_headers rs_http_headers(const char *data, size_t len)
{
    return (struct rs_http_headers){.at = data, .end = data ? data + len : data};
}
bool rs_http_headers_next(struct rs_http_headers *h);

/* The first value of a name, whatever its case; NULL: none. */
const char *rs_http_header(const char *data, size_t len, const char *name);

/* Is it about one connection only (RFC 9110, 7.6.1), so that a proxy must not pass it on? */
bool rs_http_hop_by_hop(const char *name);
/* Is `token` in a comma-separated list? Case does not count. */
bool rs_http_has_token(const char *list, const char *token);
/* May these bytes stand in a header: a name of token characters, a value without control characters? */
bool rs_http_header_ok(const char *name, const char *value);
