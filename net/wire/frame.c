#include "net/wire/frame.h"

#include "core/base/alloc.h"

#include <assert.h>
#include <string.h>

enum { WIDTH_str = 0, WIDTH_bytes = 0, WIDTH_u8 = 1, WIDTH_u16 = 2, WIDTH_u32 = 4, WIDTH_u64 = 8 };

/* Bytes of a number field, 0 for text. The hot path calls this: a table, no search. */
static size_t width_of(unsigned tag)
{
    static const uint8_t widths[RS_TAG_COUNT] = {
#define RS_TAG(name, number, type, doc) [number] = WIDTH_##type,
#include "net/wire/messages.def"
    };

    return widths[tag];
}

static void put_le(uint8_t *out, uint64_t v, size_t width)
{
    for (size_t i = 0; i < width; i++)
        out[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t get_le(const uint8_t *in, size_t width)
{
    uint64_t v = 0;

    for (size_t i = 0; i < width; i++)
        v |= (uint64_t)in[i] << (8 * i);
    return v;
}

const char *rs_msg_name(uint8_t type)
{
    switch (type) {
#define RS_MSG(name, number, who, payload, doc)                                                    \
    case number:                                                                                   \
        return #name;
#include "net/wire/messages.def"
    default:
        return "?";
    }
}

void rs_header_encode(const struct rs_header *h, uint8_t out[RS_FRAME_HEADER])
{
    put_le(out, h->meta_len, 4);
    out[4] = h->type;
    out[5] = h->flags;
    put_le(out + 6, h->fds, 2);
    put_le(out + 8, h->stream, 8);
    put_le(out + 16, h->body_len, 8);
}

int rs_header_decode(const uint8_t in[RS_FRAME_HEADER], struct rs_header *ret, struct rs_error *err)
{
    struct rs_header h = {
        .meta_len = (uint32_t)get_le(in, 4),
        .type = in[4],
        .flags = in[5],
        .fds = (uint16_t)get_le(in + 6, 2),
        .stream = get_le(in + 8, 8),
        .body_len = get_le(in + 16, 8),
    };

    if (rs_msg_name(h.type)[0] == '?')
        return rs_error_set(err, RS_INVALID, "frame of unknown type %u", h.type);
    if (h.flags & ~(RS_FRAME_END | RS_FRAME_MEMFD))
        return rs_error_set(err, RS_INVALID, "%s frame with unknown flags 0x%x",
                            rs_msg_name(h.type), h.flags);
    if (h.meta_len > RS_FRAME_META_MAX)
        return rs_error_set(err, RS_INVALID, "%s frame with %u bytes of metadata, limit %u",
                            rs_msg_name(h.type), h.meta_len, RS_FRAME_META_MAX);
    if (h.fds > RS_FRAME_FDS_MAX || ((h.flags & RS_FRAME_MEMFD) && h.fds != 1))
        return rs_error_set(err, RS_INVALID, "%s frame with %u descriptors", rs_msg_name(h.type),
                            h.fds);
    if (!(h.flags & RS_FRAME_MEMFD) && h.body_len > RS_FRAME_BODY_MAX)
        return rs_error_set(err, RS_INVALID, "%s frame with %llu bytes of body, limit %u",
                            rs_msg_name(h.type), (unsigned long long)h.body_len, RS_FRAME_BODY_MAX);
    if (h.body_len > INT64_MAX)
        return rs_error_set(err, RS_INVALID, "%s frame with an impossible body length",
                            rs_msg_name(h.type));
    *ret = h;
    return 0;
}

void rs_field_put(struct rs_buf *b, enum rs_tag tag, const void *data, size_t len)
{
    uint8_t *to;

    assert(len <= RS_FRAME_META_MAX);
    to = (uint8_t *)rs_buf_reserve(b, 5 + len);
    to[0] = (uint8_t)tag;
    put_le(to + 1, len, 4);
    if (len)
        memcpy(to + 5, data, len);
    rs_buf_commit(b, 5 + len);
}

void rs_field_put_str(struct rs_buf *b, enum rs_tag tag, const char *text)
{
    if (text)
        rs_field_put(b, tag, text, strlen(text));
}

void rs_field_put_uint(struct rs_buf *b, enum rs_tag tag, uint64_t value)
{
    uint8_t bytes[8];
    size_t width = width_of(tag);

    assert(width);
    put_le(bytes, value, width);
    rs_field_put(b, tag, bytes, width);
}

int rs_fields_parse(const void *meta, size_t len, struct rs_fields *ret, struct rs_error *err)
{
    const uint8_t *p = meta;
    struct rs_fields f = {0};

    while (len) {
        uint64_t n;
        size_t width;

        if (len < 5)
            return rs_error_set(err, RS_INVALID, "metadata ends inside a field");
        n = get_le(p + 1, 4);
        if (n > len - 5)
            return rs_error_set(err, RS_INVALID, "field %u of %llu bytes in %zu bytes of metadata",
                                p[0], (unsigned long long)n, len - 5);
        if (p[0] < RS_TAG_COUNT) {
            width = width_of(p[0]);
            if (width && n != width)
                return rs_error_set(err, RS_INVALID, "field %u of %llu bytes, wanted %zu", p[0],
                                    (unsigned long long)n, width);
            if (f.at[p[0]].data)
                return rs_error_set(err, RS_INVALID, "field %u twice", p[0]);
            f.at[p[0]] = (struct rs_field){(const char *)p + 5, (uint32_t)n};
        }
        p += 5 + n;
        len -= 5 + n;
    }
    *ret = f;
    return 0;
}

uint64_t rs_fields_uint(const struct rs_fields *f, enum rs_tag tag, uint64_t def)
{
    const struct rs_field *v = &f->at[tag];

    return v->data && v->len <= 8 ? get_le((const uint8_t *)v->data, v->len) : def;
}

char *rs_fields_dup(const struct rs_fields *f, enum rs_tag tag)
{
    return f->at[tag].data ? rs_strndup(f->at[tag].data, f->at[tag].len) : NULL;
}
