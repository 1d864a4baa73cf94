/* The records that the bodies of a WebSocket request consist of, in both directions: PROTOCOL.md,
 * "WebSocket". A record may begin and end anywhere in a BODY frame. */
#pragma once

#include <stdint.h>

enum { RS_RECORD_HEAD = 8 };
enum rs_record_type { RS_RECORD_TEXT = 1, RS_RECORD_BINARY = 2, RS_RECORD_CLOSE = 3 };

struct rs_record {
    uint8_t type;  /* any number as it was read */
    uint8_t flags; /* 1: the last piece of its message */
    uint16_t code; /* of a close */
    uint32_t len;  /* of what follows: the piece, or the reason of a close */
};

enum { RS_RECORD_FIN = 1 };

void rs_record_encode(const struct rs_record *r, uint8_t out[RS_RECORD_HEAD]);
struct rs_record rs_record_decode(const uint8_t in[RS_RECORD_HEAD]);
