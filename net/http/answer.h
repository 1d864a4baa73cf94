/* An HTTP answer as its bytes come in: status, headers, body, end. llhttp parses; this keeps what a
 * proxy passes on. No sockets.
 *
 * Bounds:    header (with those of 1xx answers, which are skipped) up to 64 KiB.
 * Ownership: embedded. The body of the last feed is borrowed until the next one.
 * Errors:    RS_INVALID: this is not HTTP, or not the answer to such a request. No use after that.
 * Strict:    an answer whose length can be read in two ways is refused, not guessed.
 */
#pragma once

#include "core/base/buf.h"
#include "core/base/error.h"

#include <llhttp.h>

struct rs_http_answer_in {
    llhttp_t parser;
    unsigned status;       /* 0: the header is not complete */
    struct rs_buf headers; /* name NUL value NUL ..., hop-by-hop ones left out */
    bool done;             /* the whole answer was there */
    bool keep_alive;       /* when done: the connection can be used again */

    /* --- its own --- */
    bool to_head;
    size_t header_bytes, name_at, value_at;
    struct rs_buf body, dropped;
    const char *span;
    size_t span_len;
    const char *problem;
};

/* Also to use it again. `to_head`: the request was HEAD, so no body follows. */
void rs_answer_begin(struct rs_http_answer_in *a, bool to_head);
void rs_answer_fini(struct rs_http_answer_in *a);

/* Takes bytes; `used` is less than `n` if the answer ended before. */
RS_MUST_CHECK int rs_answer_feed(struct rs_http_answer_in *a, const char *data, size_t n,
                                 size_t *used, struct rs_error *err);
/* The connection ended: the end of some answers, an error for others. */
RS_MUST_CHECK int rs_answer_eof(struct rs_http_answer_in *a, struct rs_error *err);
/* The part of the body that the last feed brought. */
const char *rs_answer_body(const struct rs_http_answer_in *a, size_t *len);
