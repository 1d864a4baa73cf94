/* A client's bytes, judged before libmicrohttpd parses them: it forgives what a proxy in front of it may
 * read in another way, and where two read a request differently, one of them can be made to see a
 * request that the other did not. No sockets.
 *
 * What is refused: lines that do not end with CR LF, control characters, folded lines, blanks before a
 * colon, names that are no tokens, request lines other than METHOD TARGET HTTP/1.x, bodies whose
 * length could be read in two ways, chunks that are not what they say.
 *
 * Use:   keep the bytes that were not passed on yet; after more came, call rs_strict_scan with all of
 *        them. It tells how many from the front may go on. Heads, chunk heads and trailer lines go
 *        on when they are complete, so that what is refused was never seen by anyone.
 * Bound: a head or the trailers up to `head_max` bytes, a chunk's head up to 1 KiB.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum rs_strict_state {
    RS_STRICT_HEAD,
    RS_STRICT_BODY,  /* of a known length */
    RS_STRICT_CHUNK, /* its size */
    RS_STRICT_CHUNK_DATA,
    RS_STRICT_CHUNK_END,
    RS_STRICT_TRAILER,
    RS_STRICT_UPGRADE, /* what follows is HTTP only if this handshake fails: rs_strict_no_upgrade */
    RS_STRICT_BAD,
};

struct rs_strict {
    enum rs_strict_state state, bad_in; /* bad_in: the state that ended in RS_STRICT_BAD */
    unsigned status;                    /* when BAD: the answer */
    const char *why;                    /* static */
    size_t head_max;

    /* of the line or head under way, counted from its first byte */
    size_t seen, line;
    uint64_t left; /* bytes of body or chunk, or bytes of trailers so far */
    unsigned hosts;
    bool begun; /* the request line was there */
    bool http_10, has_length, chunked, upgrades;
    uint64_t length;
};

void rs_strict_init(struct rs_strict *s, size_t head_max);
/* How many of these bytes may go on. When the state is RS_STRICT_BAD then, the byte after them begins what
 * is refused; no more calls. */
size_t rs_strict_scan(struct rs_strict *s, const char *data, size_t n);
/* For a reason that is not in the bytes. `why` is static. */
void rs_strict_refuse(struct rs_strict *s, unsigned status, const char *why);
void rs_strict_no_upgrade(struct rs_strict *s);
/* A token of RFC 9110? */
bool rs_strict_is_token(const char *text, size_t len);
