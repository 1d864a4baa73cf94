#include "net/wire/pickle.h"

#include "core/base/text.h"

#include <string.h>

/* Opcodes of protocol 5 that occur around bytes and str, and the bytes that follow each. */
enum op {
    NONE = 'N',
    EMPTY_TUPLE = ')',
    TUPLE1 = 0x85,
    TUPLE3 = 0x87,
    EMPTY_DICT = '}',
    TUPLE2 = 0x86,
    STOP = '.',
    PROTO = 0x80,
    FRAME = 0x95,
    MEMOIZE = 0x94,
};

/* Width of the length that follows an opcode which pushes bytes or str; 0: another opcode. */
static size_t length_width(unsigned char op)
{
    switch (op) {
    case 'C':  /* SHORT_BINBYTES */
    case 0x8c: /* SHORT_BINUNICODE */
        return 1;
    case 'B': /* BINBYTES */
    case 'X': /* BINUNICODE */
        return 4;
    case 0x8e: /* BINBYTES8 */
    case 0x8d: /* BINUNICODE8 */
    case 0x96: /* BYTEARRAY8 */
        return 8;
    default:
        return 0;
    }
}

/* The next opcode that is not mere packaging, or -1 at the end. */
static int next_op(const unsigned char **p, const unsigned char *end)
{
    while (*p < end) {
        unsigned char op = *(*p)++;
        size_t skip = op == PROTO ? 1 : op == FRAME ? 8 : 0;

        if (op != PROTO && op != FRAME && op != MEMOIZE)
            return op;
        if ((size_t)(end - *p) < skip)
            return -1;
        *p += skip;
    }
    return -1;
}

static int read_value(const unsigned char **p, const unsigned char *end, int op,
                      struct rs_pickle_arg *ret)
{
    size_t width = length_width((unsigned char)op);
    uint64_t n = 0;

    if (op == NONE) {
        *ret = (struct rs_pickle_arg){0};
        return 0;
    }
    if (!width || (size_t)(end - *p) < width)
        return -1;
    for (size_t i = 0; i < width; i++)
        n |= (uint64_t)(*p)[i] << (8 * i);
    *p += width;
    if (n > (size_t)(end - *p))
        return -1;
    *ret = (struct rs_pickle_arg){(const char *)*p, (size_t)n};
    *p += n;
    return 0;
}

int rs_pickle_args(const char *pickle, size_t len, struct rs_pickle_arg *args, size_t max)
{
    const unsigned char *p = (const unsigned char *)pickle, *end = p + len;
    static const int tail[] = {EMPTY_DICT, TUPLE2, STOP};
    int op = next_op(&p, end), n = 0;

    if (op != EMPTY_TUPLE) {
        for (; op >= 0 && !(op >= TUPLE1 && op <= TUPLE3); op = next_op(&p, end)) {
            if ((size_t)n == max || read_value(&p, end, op, &args[n]) < 0)
                return -1;
            n++;
        }
        if (n == 0 || op != TUPLE1 + n - 1)
            return -1;
    }
    for (size_t i = 0; i < RS_COUNT(tail); i++)
        if (next_op(&p, end) != tail[i])
            return -1;
    return p == end ? n : -1;
}

static bool is_utf8(const char *at, const char *end)
{
    while (at < end) {
        uint64_t eight;

        if (end - at >= 8) { /* mostly ASCII */
            memcpy(&eight, at, sizeof(eight));
            if (!(eight & UINT64_C(0x8080808080808080))) {
                at += 8;
                continue;
            }
        }
        if (rs_utf8_next(&at, end) < 0)
            return false;
    }
    return true;
}

int rs_pickle_text(const char *pickle, size_t len, struct rs_pickle_arg *ret)
{
    const unsigned char *p = (const unsigned char *)pickle, *end = p + len;
    int op = next_op(&p, end);
    struct rs_pickle_arg found;

    if (op == NONE || op == 0x96 || read_value(&p, end, op, &found) < 0)
        return -1;
    if (next_op(&p, end) != STOP || p != end)
        return -1;
    if ((op == 0x8c || op == 'X' || op == 0x8d) && !is_utf8(found.data, found.data + found.len))
        return -1;
    *ret = found;
    return 0;
}

void rs_pickle_bytes_head(char out[RS_PICKLE_HEAD], uint64_t len)
{
    out[0] = (char)PROTO;
    out[1] = 5;
    out[2] = (char)0x8e;
    for (size_t i = 0; i < 8; i++)
        out[3 + i] = (char)(len >> (8 * i));
}

void rs_pickle_put_bytes(struct rs_buf *out, const void *data, size_t len)
{
    char head[RS_PICKLE_HEAD];

    rs_pickle_bytes_head(head, len);
    rs_buf_append(out, head, sizeof(head));
    if (len)
        rs_buf_append(out, data, len);
    rs_buf_append(out, ".", 1);
}
