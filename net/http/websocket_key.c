#include "net/http/websocket_key.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

enum { KEY_LEN = 24, BLOCK = 64, DIGEST = 20, MESSAGE_MAX = 2 * BLOCK - 9 };

static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

bool rs_ws_key_ok(const char *key, size_t len)
{
    if (len != KEY_LEN || key[len - 1] != '=' || key[len - 2] != '=')
        return false;
    for (size_t i = 0; i < len - 2; i++) {
        if (!key[i] || !strchr(alphabet, key[i]))
            return false;
    }
    return true;
}

/* --- SHA-1: here it proves nothing but that both sides speak the same protocol ------------------ */

static uint32_t rotate(uint32_t x, unsigned n)
{
    return x << n | x >> (32 - n);
}

static uint32_t mix(unsigned round, uint32_t b, uint32_t c, uint32_t d)
{
    static const uint32_t k[] = {0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6};
    uint32_t f = round < 20   ? (b & c) | (~b & d)
                 : round < 40 ? b ^ c ^ d
                 : round < 60 ? (b & c) | (b & d) | (c & d)
                              : b ^ c ^ d;

    return f + k[round / 20];
}

static void block(uint32_t h[5], const uint8_t *p)
{
    uint32_t w[80], s[5];

    for (size_t i = 0; i < 16; i++)
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 |
               (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    for (size_t i = 16; i < 80; i++)
        w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    memcpy(s, h, sizeof(s));
    for (unsigned i = 0; i < 80; i++) {
        uint32_t t = rotate(s[0], 5) + mix(i, s[1], s[2], s[3]) + s[4] + w[i];

        s[4] = s[3];
        s[3] = s[2];
        s[2] = rotate(s[1], 30);
        s[1] = s[0];
        s[0] = t;
    }
    for (size_t i = 0; i < 5; i++)
        h[i] += s[i];
}

/* Of a message that fits two blocks. */
static void sha1(const uint8_t *data, size_t len, uint8_t out[DIGEST])
{
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    uint8_t padded[2 * BLOCK] = {0};
    size_t end = len + 9 > BLOCK ? 2 * BLOCK : BLOCK;

    assert(len <= MESSAGE_MAX);
    memcpy(padded, data, len);
    padded[len] = 0x80;
    padded[end - 2] = (uint8_t)(len * 8 >> 8);
    padded[end - 1] = (uint8_t)(len * 8);
    for (size_t at = 0; at < end; at += BLOCK)
        block(h, padded + at);
    for (size_t i = 0; i < DIGEST; i++)
        out[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
}

/* --- ------------------------------------------------------------------------------------------- */

/* 20 bytes: six groups of three, and two bytes. */
static void base64(const uint8_t in[DIGEST], char out[RS_WS_ACCEPT_LEN + 1])
{
    for (size_t i = 0; i < DIGEST; i += 3) {
        uint32_t bits =
            (uint32_t)in[i] << 16 | (uint32_t)in[i + 1] << 8 | (i + 2 < DIGEST ? in[i + 2] : 0u);

        for (size_t k = 0; k < 4; k++)
            *out++ = alphabet[bits >> (18 - 6 * k) & 63];
    }
    out[-1] = '=';
    *out = '\0';
}

void rs_ws_accept(const char *key, size_t len, char out[RS_WS_ACCEPT_LEN + 1])
{
    uint8_t text[KEY_LEN + sizeof(guid)], digest[DIGEST];

    assert(len == KEY_LEN);
    memcpy(text, key, len);
    memcpy(text + len, guid, sizeof(guid) - 1);
    sha1(text, len + sizeof(guid) - 1, digest);
    base64(digest, out);
}
