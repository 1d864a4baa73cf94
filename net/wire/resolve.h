/* Names of hosts, through c-ares: a static binary has no resolver of the C library.
 *
 * Reads /etc/hosts and /etc/resolv.conf each time, so that changes count. Of several addresses an IPv4
 * one is taken first.
 *
 * Thread: the loop's.
 * Errors: RS_INVALID: it is no address. RS_TIMEOUT. RS_SYSTEM: the name is not known, or the name
 *         servers cannot be asked; the message says which.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/base/error.h"
#include "core/loop/loop.h"
#include "net/wire/tcp.h"

struct rs_resolve;

struct rs_resolve_conf {
    int64_t timeout;     /* ns for all of it; 0: 10 s */
    const char *servers; /* "127.0.0.1:53,..", for tests; NULL: those of /etc/resolv.conf */
};

/* "head.example:6379": the host is a name and not an address. */
bool rs_address_is_name(const char *text);

/* Asks for the address of a name with a port (`def_port` where it has none). `done` is called once, in
 * a later turn, with `found` or, where that is NULL, with the reason; it may free the resolver. */
RS_MUST_CHECK int rs_resolve_start(struct rs_resolve **ret, struct rs_loop *loop, const char *text,
                                   int def_port, const struct rs_resolve_conf *conf,
                                   void (*done)(const struct rs_address *found,
                                                const struct rs_error *why, void *arg),
                                   void *arg, struct rs_error *err);
void rs_resolve_free(struct rs_resolve *r); /* also before it is done; NULL is fine */
RS_DEFINE_AUTO(struct rs_resolve *, rs_resolve_free);

/* Waits for it, in a loop of its own; an address needs no asking. For commands. */
RS_MUST_CHECK int rs_address_resolve(const char *text, int def_port, int64_t timeout,
                                     struct rs_address *ret, struct rs_error *err);
