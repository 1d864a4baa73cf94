#include "net/http/access_line.h"

#include "core/base/error.h"
#include "core/base/text.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* What one byte becomes at most, and all that is not somebody's text. */
enum { WIDEST = 6, FRAME = 700 };

static char *put(char *to, const char *text, size_t len)
{
    memcpy(to, text, len);
    return to + len;
}

#define PUT(to, literal) put(to, literal, sizeof(literal) - 1)

static char *put_number(char *to, uint64_t n)
{
    char digits[20];
    size_t len = 0;

    do {
        digits[len++] = (char)('0' + n % 10);
        n /= 10;
    } while (n);
    while (len)
        *to++ = digits[--len];
    return to;
}

/* Milliseconds of `ns`, rounded, with `decimals` of them. */
static char *put_ms(char *to, int64_t ns, int decimals)
{
    uint64_t unit = decimals == 1 ? 100000 : 1000;
    uint64_t n = ((uint64_t)(ns > 0 ? ns : 0) + unit / 2) / unit, below = 1000000 / unit;

    to = put_number(to, n / below);
    *to++ = '.';
    for (below /= 10; below; below /= 10)
        *to++ = (char)('0' + n / below % 10);
    return to;
}

static bool is_plain(unsigned char c, bool json)
{
    return c > ' ' && c < 0x7f ? c != '\\' && (!json || c != '"') : json && c == ' ';
}

/* One byte or character that is not plain; moves *at behind it. */
static char *put_odd(char *to, const char **at, const char *end, bool json)
{
    const char *from = *at;
    unsigned char c = (unsigned char)*from;

    if (c >= 0x80 && rs_utf8_next(at, end) >= 0xa0) /* below are control characters */
        return put(to, from, (size_t)(*at - from));
    *at = from + 1;
    if (c == '\\' || c == '"') {
        *to++ = '\\';
        *to++ = (char)c;
        return to;
    }
    to = json ? PUT(to, "\\u00") : PUT(to, "\\x");
    *to++ = "0123456789abcdef"[c >> 4];
    *to++ = "0123456789abcdef"[c & 15];
    return to;
}

#define EACH(byte) (UINT64_C(0x0101010101010101) * (byte))

/* Not 0 if a byte of `w` is below `n` <= 0x80. */
static uint64_t below(uint64_t w, unsigned char n)
{
    return (w - EACH(n)) & ~w & EACH(0x80);
}

/* All eight are plain. */
static bool are_plain(uint64_t w, bool json)
{
    uint64_t odd = (w | (w + EACH(1))) & EACH(0x80); /* 0x7f and above */

    odd |= below(w, json ? ' ' : ' ' + 1) | below(w ^ EACH('\\'), 1);
    if (json)
        odd |= below(w ^ EACH('"'), 1);
    return odd == 0;
}

/* May write up to 7 bytes more than it puts. */
static char *put_text(char *to, const char *text, size_t len, bool json)
{
    const char *end = text + len;

    while (text < end) {
        size_t n = (size_t)(end - text);
        uint64_t w = EACH('a');

        if (n >= sizeof(w)) {
            n = sizeof(w);
            memcpy(&w, text, sizeof(w));
        } else {
            memcpy(&w, text, n);
        }
        if (are_plain(w, json)) {
            memcpy(to, &w, sizeof(w));
            to += n;
            text += n;
            continue;
        }
        for (const char *part = text + n; text < part;) {
            if (is_plain((unsigned char)*text, json))
                *to++ = *text++;
            else
                to = put_odd(to, &text, end, json);
        }
    }
    return to;
}

static char *put_stamp(char *to, struct rs_access_form *form, int64_t wall)
{
    int64_t second = wall / 1000000000;
    int ms = (int)(wall / 1000000 % 1000);

    if (second != form->second) {
        time_t t = (time_t)second;
        struct tm local;

        localtime_r(&t, &local);
        if (!strftime(form->stamp, sizeof(form->stamp), "%Y-%m-%d %H:%M:%S", &local))
            memset(form->stamp, '-', sizeof(form->stamp)); /* a year of five digits */
        form->second = second;
    }
    to = put(to, form->stamp, sizeof(form->stamp) - 1);
    *to++ = ',';
    *to++ = (char)('0' + ms / 100);
    *to++ = (char)('0' + ms / 10 % 10);
    *to++ = (char)('0' + ms % 10);
    return to;
}

static char *put_field(char *to, const char *name, const char *value)
{
    if (!*value)
        return to;
    *to++ = ' ';
    to = put(to, name, strlen(name));
    *to++ = '=';
    return put_text(to, value, strlen(value), false);
}

/* INFO 2026-11-21 18:31:02,123 proxy 10.0.0.1 ID -- 10.0.0.9:4711 GET /path 200 12.3ms bytes=5 .. */
static char *text_line(char *to, struct rs_access_form *form, const struct rs_access *a)
{
    to = PUT(to, "INFO ");
    to = put_stamp(to, form, a->wall);
    to = PUT(to, " proxy ");
    to = put(to, form->node, strlen(form->node));
    *to++ = ' ';
    to = put_text(to, a->request_id, a->request_id_len, false);
    to = PUT(to, " -- ");
    to = put_text(to, a->client, a->client_len, false);
    *to++ = ' ';
    to = put_text(to, a->method, strlen(a->method), false);
    *to++ = ' ';
    to = put_text(to, a->path, a->path_len, false);
    *to++ = ' ';
    to = put_number(to, a->status);
    *to++ = ' ';
    to = put_ms(to, a->took, 1);
    to = PUT(to, "ms bytes=");
    to = put_number(to, a->bytes);
    to = put(to, rs_buf_head(a->where), rs_buf_len(a->where));
    to = put_field(to, "replica", a->replica);
    to = put_field(to, "cause", a->cause);
    *to++ = '\n';
    return to;
}

static char *put_member(char *to, const char *head, size_t head_len, const char *value, size_t len)
{
    to = put(to, head, head_len);
    to = put_text(to, value, len, true);
    *to++ = '"';
    return to;
}

#define MEMBER(to, name, value, len)                                                               \
    put_member(to, ", \"" name "\": \"", sizeof(name) + 6, value, len)
#define MEMBER_STR(to, name, value) MEMBER(to, name, value, strlen(value))

/* The members that Ray's JSON lines have too bear Ray's names. */
static char *json_line(char *to, struct rs_access_form *form, const struct rs_access *a)
{
    to = PUT(to, "{\"asctime\": \"");
    to = put_stamp(to, form, a->wall);
    to = PUT(to, "\", \"levelname\": \"INFO\", \"message\": \"");
    to = put_text(to, a->method, strlen(a->method), true);
    *to++ = ' ';
    to = put_text(to, a->path, a->path_len, true);
    *to++ = ' ';
    to = put_number(to, a->status);
    *to++ = ' ';
    to = put_ms(to, a->took, 1);
    to = PUT(to, "ms\", \"timestamp_ns\": ");
    to = put_number(to, (uint64_t)a->wall);
    to = PUT(to, ", \"component_name\": \"proxy\"");
    to = MEMBER_STR(to, "component_id", form->node);
    to = MEMBER(to, "request_id", a->request_id, a->request_id_len);
    to = MEMBER(to, "client", a->client, a->client_len);
    to = MEMBER_STR(to, "method", a->method);
    to = MEMBER(to, "path", a->path, a->path_len);
    to = PUT(to, ", \"status\": ");
    to = put_number(to, a->status);
    to = PUT(to, ", \"latency_ms\": ");
    to = put_ms(to, a->took, 3);
    to = PUT(to, ", \"bytes\": ");
    to = put_number(to, a->bytes);
    to = put(to, rs_buf_head(a->where), rs_buf_len(a->where));
    to = MEMBER_STR(to, "replica", a->replica);
    to = MEMBER_STR(to, "cause", a->cause);
    return PUT(to, "}\n");
}

void rs_access_where(struct rs_buf *out, const struct rs_access_form *form, const char *route,
                     const char *app, const char *deployment)
{
    char *start =
        rs_buf_reserve(out, (strlen(route) + strlen(app) + strlen(deployment)) * WIDEST + FRAME);
    char *to = start;

    if (form->json) {
        to = MEMBER_STR(to, "route", route);
        to = MEMBER_STR(to, "application", app);
        to = MEMBER_STR(to, "deployment", deployment);
    } else {
        to = put_field(to, "application", app);
        to = put_field(to, "deployment", deployment);
    }
    rs_buf_commit(out, (size_t)(to - start));
}

void rs_access_line(struct rs_buf *out, struct rs_access_form *form, const struct rs_access *a)
{
    size_t texts = a->client_len + 2 * (a->path_len + strlen(a->method)) + a->request_id_len +
                   strlen(a->replica) + strlen(a->cause) + strlen(form->node);
    char *start = rs_buf_reserve(out, texts * WIDEST + rs_buf_len(a->where) + FRAME);
    char *end = form->json ? json_line(start, form, a) : text_line(start, form, a);

    rs_buf_commit(out, (size_t)(end - start));
}
