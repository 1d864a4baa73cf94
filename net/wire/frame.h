/* Frames and metadata fields of the rserve wire protocol: bytes only, no sockets.
 *
 * The protocol stands in PROTOCOL.md; names and numbers come from messages.def.
 * Ownership: decoding borrows from the bytes that it was given.
 * Errors:    RS_INVALID naming what broke which limit; then the connection is of no more use.
 * Layer:     net/wire may include core/base and core/loop.
 */
#pragma once

#include "core/base/buf.h"
#include "core/base/error.h"

#include <stdint.h>

enum rs_msg {
#define RS_MSG(name, number, who, payload, doc) RS_MSG_##name = number,
#include "net/wire/messages.def"
};

enum rs_tag {
#define RS_TAG(name, number, type, doc) RS_TAG_##name = number,
#include "net/wire/messages.def"
    RS_TAG_COUNT /* one more than the highest tag */
};

enum { RS_WIRE_VERSION = 1, RS_FRAME_HEADER = 24, RS_FRAME_FDS_MAX = 4 };
enum { RS_FRAME_END = 1, RS_FRAME_MEMFD = 2 };
#define RS_FRAME_META_MAX (1u << 20)
#define RS_FRAME_BODY_MAX (16u << 20)  /* inline */
#define RS_FRAME_MEMFD_MIN (64u << 10) /* longer bodies travel as a memfd over Unix sockets */
#define RS_STREAM_WINDOW (256u << 10)  /* credit at the start of each direction of a stream */
/* Values of the field KIND. */
enum {
    RS_REQUEST_HTTP = 1,
    RS_REQUEST_CALL = 2,
    RS_REQUEST_WEBSOCKET = 3,
    RS_REQUEST_GET = 4,
    RS_REQUEST_PUT = 5,
    RS_REQUEST_WAIT = 6,
    RS_REQUEST_RESERVE = 7,
};

/* The codes of PROTOCOL.md, "Errors". */
enum rs_wire_error {
    RS_WIRE_USER = 1,
    RS_WIRE_BACKPRESSURE,
    RS_WIRE_UNAVAILABLE,
    RS_WIRE_CANCELLED,
    RS_WIRE_TIMEOUT,
    RS_WIRE_DIED,
    RS_WIRE_NOT_FOUND,
    RS_WIRE_PROTOCOL,
    RS_WIRE_TOO_LARGE,
    RS_WIRE_INTERNAL,
};

struct rs_header {
    uint32_t meta_len;
    uint8_t type, flags;
    uint16_t fds;
    uint64_t stream, body_len;
};

void rs_header_encode(const struct rs_header *h, uint8_t out[RS_FRAME_HEADER]);
/* Checks version-independent limits, types and flags. */
RS_MUST_CHECK int rs_header_decode(const uint8_t in[RS_FRAME_HEADER], struct rs_header *ret,
                                   struct rs_error *err);
/* "REQUEST"; "?" for an unknown number. */
const char *rs_msg_name(uint8_t type);

/* Metadata fields. Writing appends to `b`. */
void rs_field_put(struct rs_buf *b, enum rs_tag tag, const void *data, size_t len);
void rs_field_put_str(struct rs_buf *b, enum rs_tag tag, const char *text); /* NULL: nothing */
void rs_field_put_uint(struct rs_buf *b, enum rs_tag tag, uint64_t value);  /* width by the table */

struct rs_field {
    const char *data; /* NULL: absent */
    uint32_t len;
};

struct rs_fields {
    struct rs_field at[RS_TAG_COUNT];
};

RS_MUST_CHECK int rs_fields_parse(const void *meta, size_t len, struct rs_fields *ret,
                                  struct rs_error *err);
static inline bool rs_fields_has(const struct rs_fields *f, enum rs_tag tag)
{
    return f->at[tag].data != NULL;
}
uint64_t rs_fields_uint(const struct rs_fields *f, enum rs_tag tag, uint64_t def);
/* A copy for the caller; NULL if the field is absent. Bytes after a NUL are cut off. */
char *rs_fields_dup(const struct rs_fields *f, enum rs_tag tag);
