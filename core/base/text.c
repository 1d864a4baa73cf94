#include "core/base/text.h"

#include "core/base/error.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct range {
    int32_t first, last;
} zero_width[] =
    {
        {0x0300, 0x036f}, {0x0483, 0x0489}, {0x0591, 0x05bd}, {0x0610, 0x061a}, {0x064b, 0x065f},
        {0x0900, 0x0902}, {0x093c, 0x093c}, {0x0e31, 0x0e31}, {0x0e34, 0x0e3a}, {0x0e47, 0x0e4e},
        {0x1ab0, 0x1aff}, {0x1dc0, 0x1dff}, {0x200b, 0x200f}, {0x2028, 0x202e}, {0x2060, 0x206f},
        {0x20d0, 0x20ff}, {0xfe00, 0xfe0f}, {0xfe20, 0xfe2f}, {0xfeff, 0xfeff}, {0xe0000, 0xe0fff},
},
  wide[] = {
      {0x1100, 0x115f},   {0x231a, 0x231b},   {0x23e9, 0x23ec},   {0x2705, 0x2705},
      {0x274c, 0x274c},   {0x2e80, 0x303e},   {0x3041, 0xa4cf},   {0xac00, 0xd7a3},
      {0xf900, 0xfaff},   {0xfe30, 0xfe6f},   {0xff00, 0xff60},   {0xffe0, 0xffe6},
      {0x1f300, 0x1f64f}, {0x1f680, 0x1f6ff}, {0x1f900, 0x1faff}, {0x20000, 0x3fffd},
};

int32_t rs_utf8_next(const char **at, const char *end)
{
    static const int32_t least[] = {0, 0x80, 0x800, 0x10000};
    const unsigned char *p = (const unsigned char *)*at;
    size_t more = *p < 0x80 ? 0 : (*p & 0xe0) == 0xc0 ? 1 : (*p & 0xf0) == 0xe0 ? 2 : 3;
    int32_t c = more == 0 ? *p : *p & (0x3f >> more);

    if ((more == 3 && (*p & 0xf8) != 0xf0) || (size_t)(end - *at) <= more)
        goto bad;
    for (size_t i = 1; i <= more; i++) {
        if ((p[i] & 0xc0) != 0x80)
            goto bad;
        c = (c << 6) | (p[i] & 0x3f);
    }
    if (c < least[more] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        goto bad;
    *at += more + 1;
    return c;
bad:
    *at += 1;
    return -1;
}

static bool is_in(const struct range *ranges, size_t n, int32_t c)
{
    for (size_t i = 0; i < n; i++)
        if (c >= ranges[i].first && c <= ranges[i].last)
            return true;
    return false;
}

static size_t char_width(int32_t c)
{
    if (c < 0x300)
        return 1;
    if (is_in(zero_width, RS_COUNT(zero_width), c))
        return 0;
    return is_in(wide, RS_COUNT(wide), c) ? 2 : 1;
}

size_t rs_text_width(const char *text, size_t n)
{
    size_t width = 0;

    for (const char *at = text, *end = text + n; at < end;)
        width += char_width(rs_utf8_next(&at, end));
    return width;
}

static bool is_control(int32_t c)
{
    /* C0, DEL, C1; the bidirectional ones reorder what a reader sees */
    return (c >= 0 && c < 0x20) || (c >= 0x7f && c < 0xa0) || (c >= 0x202a && c <= 0x202e) ||
           (c >= 0x2066 && c <= 0x2069);
}

static void put(struct rs_buf *out, int32_t c, const char *at, size_t n)
{
    if (c < 0)
        rs_buf_puts(out, "\xef\xbf\xbd");
    else if (is_control(c))
        rs_buf_puts(out, " ");
    else
        rs_buf_append(out, at, n);
}

/* Appends what fits into `width` columns; returns the bytes taken. */
static size_t put_columns(struct rs_buf *out, const char *text, size_t n, size_t width)
{
    const char *at = text, *end = text + n;

    for (size_t used = 0; at < end;) {
        const char *from = at;
        int32_t c = rs_utf8_next(&at, end);

        used += is_control(c) ? 1 : char_width(c);
        if (used > width)
            return (size_t)(from - text);
        put(out, c, from, (size_t)(at - from));
    }
    return n;
}

void rs_text_fit(struct rs_buf *out, const char *text, size_t width)
{
    size_t n = strlen(text), dots = width < 4 ? width : 3;

    if (rs_text_width(text, n) <= width) {
        put_columns(out, text, n, width);
        return;
    }
    put_columns(out, text, n, width - dots);
    rs_buf_append(out, "...", dots);
}

void rs_text_pad(struct rs_buf *out, const char *text, size_t width)
{
    size_t before = rs_buf_len(out), used;

    rs_text_fit(out, text, width);
    used = rs_text_width(rs_buf_head(out) + before, rs_buf_len(out) - before);
    if (used < width)
        rs_buf_printf(out, "%*s", (int)(width - used), "");
}

/* Where a line that begins at `text` ends: bytes of it, at most `n`, without the blank it ends at. */
static size_t line_length(const char *text, size_t n, size_t width)
{
    const char *at = text, *end = text + n;
    size_t blank = 0;
    bool word = false;

    for (size_t used = 0; at < end;) {
        const char *from = at;
        int32_t c = rs_utf8_next(&at, end);

        if (c == ' ' && word)
            blank = (size_t)(from - text);
        word = word || c != ' ';
        used += is_control(c) ? 1 : char_width(c);
        if (used > width)
            return blank ? blank : from > text ? (size_t)(from - text) : (size_t)(at - text);
    }
    return n;
}

void rs_text_wrap(struct rs_buf *out, const char *text, size_t indent, size_t width)
{
    size_t room = width > indent + 8 ? width - indent : 8;

    while (*text) {
        size_t n = strcspn(text, "\n");

        if (n == 0)
            rs_buf_puts(out, "\n");
        for (size_t done = 0; done < n;) {
            size_t len = line_length(text + done, n - done, room), shown = len;

            while (shown > 0 && text[done + shown - 1] == ' ')
                shown--;
            rs_buf_printf(out, "%*s", shown ? (int)indent : 0, "");
            put_columns(out, text + done, shown, SIZE_MAX);
            rs_buf_puts(out, "\n");
            done += len;
            while (done < n && text[done] == ' ')
                done++;
        }
        text += n + (text[n] == '\n');
    }
}

const char *rs_text_double(double value, char out[RS_DOUBLE_TEXT])
{
    if (!isfinite(value)) {
        snprintf(out, RS_DOUBLE_TEXT, "%s", isnan(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf");
        return out;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(out, RS_DOUBLE_TEXT, "%.*g", digits, value);
        if (strtod(out, NULL) == value)
            break;
    }
    if (!strpbrk(out, ".e")) {
        size_t n = strlen(out);

        snprintf(out + n, RS_DOUBLE_TEXT - n, ".0");
    }
    return out;
}
