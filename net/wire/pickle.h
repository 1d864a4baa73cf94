/* The few pickles that the data plane itself reads and writes: arguments that are bytes or str, and a
 * bytes object. Nothing is ever executed: any other opcode makes the pickle "something else".
 *
 * Ownership: what is found is borrowed from the pickle.
 */
#pragma once

#include "core/base/buf.h"

#define RS_PICKLE_TYPE "application/x-python-pickle"

struct rs_pickle_arg {
    const char *data; /* NULL: None */
    size_t len;
};

/* The positional arguments in a pickled `(args, kwargs)` with empty kwargs. How many there are, or -1:
 * more than `max` (at most 3), or one that is not bytes, bytearray, str or None. */
int rs_pickle_args(const char *pickle, size_t len, struct rs_pickle_arg *args, size_t max);

/* What the pickle of a single bytes object, or of a str that is whole UTF-8 (no halves of surrogate
 * pairs), holds. -1: it is something else; a bytearray is. */
int rs_pickle_text(const char *pickle, size_t len, struct rs_pickle_arg *ret);

/* Appends the pickle of a bytes object; in two steps where the bytes come from elsewhere. */
void rs_pickle_put_bytes(struct rs_buf *out, const void *data, size_t len);
enum { RS_PICKLE_HEAD = 11 };
void rs_pickle_bytes_head(char out[RS_PICKLE_HEAD], uint64_t len); /* then the bytes, then "." */
