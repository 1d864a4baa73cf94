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

static char *put_text(char *to, const char *text, size_t len, bool json)
{
    const char *end = text + len;

    while (text < end) {
        if (is_plain((unsigned char)*text, json))
            *to++ = *text++;
        else
            to = put_odd(to, &text, end, json);
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
            form->stamp[0] = '\0';
        form->second = second;
    }
    to = put(to, form->stamp, strlen(form->stamp));
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
    to = put_text(to, a->request_id, strlen(a->request_id), false);
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
    to = put_field(to, "application", a->app);
    to = put_field(to, "deployment", a->deployment);
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
    to = MEMBER_STR(to, "request_id", a->request_id);
    to = MEMBER(to, "client", a->client, a->client_len);
    to = MEMBER_STR(to, "method", a->method);
    to = MEMBER(to, "path", a->path, a->path_len);
    to = PUT(to, ", \"status\": ");
    to = put_number(to, a->status);
    to = PUT(to, ", \"latency_ms\": ");
    to = put_ms(to, a->took, 3);
    to = PUT(to, ", \"bytes\": ");
    to = put_number(to, a->bytes);
    to = MEMBER_STR(to, "route", a->route);
    to = MEMBER_STR(to, "application", a->app);
    to = MEMBER_STR(to, "deployment", a->deployment);
    to = MEMBER_STR(to, "replica", a->replica);
    to = MEMBER_STR(to, "cause", a->cause);
    return PUT(to, "}\n");
}

void rs_access_line(struct rs_buf *out, struct rs_access_form *form, const struct rs_access *a)
{
    size_t texts = a->client_len + 2 * (a->path_len + strlen(a->method)) + strlen(a->request_id) +
                   strlen(a->route) + strlen(a->app) + strlen(a->deployment) + strlen(a->replica) +
                   strlen(a->cause) + strlen(form->node);
    char *start = rs_buf_reserve(out, texts * WIDEST + FRAME);
    char *end = form->json ? json_line(start, form, a) : text_line(start, form, a);

    rs_buf_commit(out, (size_t)(end - start));
}
