/* The bytes of WebSocket frames (RFC 6455, section 5): heads, masks, text that comes in pieces. Pure;
 * nothing here allocates. No library: Debian has none as a static archive, and bodies are to pass
 * through piece by piece as credit allows.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum rs_ws_opcode {
    RS_WS_CONTINUATION = 0,
    RS_WS_TEXT = 1,
    RS_WS_BINARY = 2,
    RS_WS_CLOSE = 8,
    RS_WS_PING = 9,
    RS_WS_PONG = 10,
};

/* Close codes that this side says or tells. */
enum rs_ws_code {
    RS_WS_NORMAL = 1000,
    RS_WS_GOING_AWAY = 1001,
    RS_WS_PROTOCOL = 1002,
    RS_WS_NO_CODE = 1005,  /* a close frame without one; never sent */
    RS_WS_ABNORMAL = 1006, /* no close frame came; never sent */
    RS_WS_NOT_TEXT = 1007,
    RS_WS_TOO_BIG = 1009,
    RS_WS_ERROR = 1011,
    RS_WS_RESTART = 1012,
};

enum { RS_WS_HEAD_MAX = 14, RS_WS_CONTROL_MAX = 125, RS_WS_REASON_MAX = 123 };

struct rs_ws_head {
    bool fin, masked;
    uint8_t reserved, opcode;
    uint64_t len;
    uint8_t mask[4];
};

/* Bytes that the head takes up; 0: `n` are not all of it. Any bytes make a head: judging it is up to
 * the caller. */
size_t rs_ws_head_parse(const uint8_t *p, size_t n, struct rs_ws_head *ret);
/* One without a mask, as servers send them. Returns its length. */
size_t rs_ws_head_put(uint8_t out[RS_WS_HEAD_MAX], uint8_t opcode, bool fin, uint64_t len);
/* Copies `n` bytes that lie `at` bytes into a masked payload. */
void rs_ws_unmask(char *to, const char *from, size_t n, const uint8_t mask[4], uint64_t at);

/* May this code stand in a close frame? */
bool rs_ws_code_ok(unsigned code);

/* UTF-8 that comes in pieces; {0} at the start of a text. */
struct rs_ws_text {
    uint8_t left;      /* bytes that the character still lacks */
    uint8_t low, high; /* what the next one of them may be */
};
/* False: it is not UTF-8, whatever follows. */
bool rs_ws_text_feed(struct rs_ws_text *t, const char *data, size_t n);
static inline bool rs_ws_text_whole(const struct rs_ws_text *t)
{
    return t->left == 0;
}
