#include "net/http/websocket_frame.h"

#include <string.h>

size_t rs_ws_head_parse(const uint8_t *p, size_t n, struct rs_ws_head *ret)
{
    size_t wide = 0, size;

    if (n < 2)
        return 0;
    *ret = (struct rs_ws_head){.fin = p[0] & 0x80,
                               .reserved = p[0] >> 4 & 7,
                               .opcode = p[0] & 15,
                               .masked = p[1] & 0x80,
                               .len = p[1] & 0x7f};
    if (ret->len >= 126)
        wide = ret->len == 126 ? 2 : 8;
    size = 2 + wide + (ret->masked ? 4 : 0);
    if (n < size)
        return 0;
    if (wide)
        ret->len = 0;
    for (size_t i = 0; i < wide; i++)
        ret->len = ret->len << 8 | p[2 + i];
    if (ret->masked)
        memcpy(ret->mask, p + 2 + wide, 4);
    return size;
}

size_t rs_ws_head_put(uint8_t out[RS_WS_HEAD_MAX], uint8_t opcode, bool fin, uint64_t len)
{
    size_t wide = len < 126 ? 0 : len <= UINT16_MAX ? 2 : 8;

    out[0] = (uint8_t)((fin ? 0x80 : 0) | opcode);
    out[1] = wide == 0 ? (uint8_t)len : wide == 2 ? 126 : 127;
    for (size_t i = 0; i < wide; i++)
        out[2 + i] = (uint8_t)(len >> (8 * (wide - 1 - i)));
    return 2 + wide;
}

void rs_ws_unmask(char *to, const char *from, size_t n, const uint8_t mask[4], uint64_t at)
{
    uint8_t turned[8];
    uint64_t wide;
    size_t i = 0;

    for (size_t k = 0; k < sizeof(turned); k++)
        turned[k] = mask[(at + k) & 3];
    memcpy(&wide, turned, sizeof(wide));
    for (; n - i >= sizeof(wide); i += sizeof(wide)) {
        uint64_t x;

        memcpy(&x, from + i, sizeof(x));
        x ^= wide;
        memcpy(to + i, &x, sizeof(x));
    }
    for (; i < n; i++)
        to[i] = (char)((uint8_t)from[i] ^ turned[i & 7]);
}

bool rs_ws_code_ok(unsigned code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
}

/* The first byte of a character tells how many follow, and narrows the second one: neither
 * overlong forms nor surrogates nor anything beyond U+10FFFF. */
static bool begin(struct rs_ws_text *t, uint8_t c)
{
    if (c < 0xc2 || c > 0xf4)
        return false;
    t->left = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
    t->low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    t->high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    return true;
}

bool rs_ws_text_feed(struct rs_ws_text *t, const char *data, size_t n)
{
    const uint8_t *p = (const uint8_t *)data, *end = p + n;

    while (p < end) {
        uint64_t wide;

        if (t->left) {
            if (*p < t->low || *p > t->high)
                return false;
            t->left--;
            t->low = 0x80;
            t->high = 0xbf;
            p++;
            continue;
        }
        while ((size_t)(end - p) >= sizeof(wide)) {
            memcpy(&wide, p, sizeof(wide));
            if (wide & UINT64_C(0x8080808080808080))
                break;
            p += sizeof(wide);
        }
        if (p < end && *p >= 0x80 && !begin(t, *p))
            return false;
        if (p < end)
            p++;
    }
    return true;
}
