/* Who may use the admin API. Pure: facts of a request go in, a verdict comes out.
 *
 * A listener on loopback trusts this machine's users, but not the pages in their browsers: a page of
 * another site may send requests here (Origin tells it), or have its own name point here (Host tells
 * it). A listener that others can reach demands the token for what changes state; without a token
 * only this machine may change anything.
 */
#pragma once

#include "core/base/error.h"

#include <stddef.h>

struct rs_guard {
    bool loopback;        /* the listener is on loopback */
    const char *token;    /* NULL or "": none is configured */
    const char *hostname; /* this machine's name; may be NULL */
};

struct rs_guard_facts {
    bool changes; /* the request would change state */
    bool peer_is_loopback;
    const char *host, *origin, *authorization; /* headers, NULL if absent */
};

/* 0: go on. Otherwise the HTTP status (401 or 403) and one line into `why`. */
int rs_guard_check(const struct rs_guard *g, const struct rs_guard_facts *f, char *why,
                   size_t size);
