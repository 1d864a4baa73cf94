/* Who a request comes from, as trusted proxies tell: X-Forwarded-For, X-Forwarded-Proto, Forwarded.
 *
 * Each proxy adds the address that it was called from at the end. Read from there, the first address
 * that is not a trusted proxy's is the client's: what stands before it anybody may have written.
 *
 * Ownership: texts are borrowed for the length of a call.
 */
#pragma once

#include "core/base/network.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct rs_trusted {
    struct rs_network *networks;
    size_t n;
};

/* `list`: addresses and networks; NULL: 127.0.0.1 alone. What is neither is left out. */
void rs_trusted_init(struct rs_trusted *t, const json_t *list);
void rs_trusted_fini(struct rs_trusted *t);
bool rs_trusted_has(const struct rs_trusted *t, const struct rs_ip *ip);

/* Elements of X-Forwarded-For, of all its lines in their order, divided by commas. False: it names no
 * address, *client is untouched. */
bool rs_forwarded_for(const struct rs_trusted *t, const char *text, size_t len,
                      struct rs_ip *client);
/* X-Forwarded-Proto: what the last proxy says. NULL: nothing that is known; else "http" or "https". */
const char *rs_forwarded_proto(const char *text, size_t len);
/* Forwarded (RFC 7239). *proto stays if the element that names the client does not say it. */
bool rs_forwarded(const struct rs_trusted *t, const char *text, size_t len, struct rs_ip *client,
                  const char **proto);
