#include "net/http/strict.h"

#include "core/base/error.h"

#include <string.h>
#include <strings.h>
#include <sys/types.h>

enum {
    CHUNK_HEAD_MAX = 1024,
    BLANK_LINES_MAX = 4, /* in front of a request line */
};

#define BIGGEST ((uint64_t)INT64_MAX)

/* 1: may stand in a token; 2: in a Host header too, and these alone; 3: in both. */
static const unsigned char kinds[256] = {
    ['!'] = 3, ['#'] = 1, ['$'] = 3, ['%'] = 3, ['&'] = 3, ['\''] = 3, ['*'] = 3, ['+'] = 3,
    ['-'] = 3, ['.'] = 3, ['^'] = 1, ['_'] = 3, ['`'] = 1, ['|'] = 1,  ['~'] = 3, ['('] = 2,
    [')'] = 2, [';'] = 2, ['='] = 2, [':'] = 2, ['['] = 2, [']'] = 2,  ['0'] = 3, ['1'] = 3,
    ['2'] = 3, ['3'] = 3, ['4'] = 3, ['5'] = 3, ['6'] = 3, ['7'] = 3,  ['8'] = 3, ['9'] = 3,
    ['A'] = 3, ['B'] = 3, ['C'] = 3, ['D'] = 3, ['E'] = 3, ['F'] = 3,  ['G'] = 3, ['H'] = 3,
    ['I'] = 3, ['J'] = 3, ['K'] = 3, ['L'] = 3, ['M'] = 3, ['N'] = 3,  ['O'] = 3, ['P'] = 3,
    ['Q'] = 3, ['R'] = 3, ['S'] = 3, ['T'] = 3, ['U'] = 3, ['V'] = 3,  ['W'] = 3, ['X'] = 3,
    ['Y'] = 3, ['Z'] = 3, ['a'] = 3, ['b'] = 3, ['c'] = 3, ['d'] = 3,  ['e'] = 3, ['f'] = 3,
    ['g'] = 3, ['h'] = 3, ['i'] = 3, ['j'] = 3, ['k'] = 3, ['l'] = 3,  ['m'] = 3, ['n'] = 3,
    ['o'] = 3, ['p'] = 3, ['q'] = 3, ['r'] = 3, ['s'] = 3, ['t'] = 3,  ['u'] = 3, ['v'] = 3,
    ['w'] = 3, ['x'] = 3, ['y'] = 3, ['z'] = 3,
};

static size_t token_len(const char *text, size_t len)
{
    size_t n = 0;

    while (n < len && (kinds[(unsigned char)text[n]] & 1))
        n++;
    return n;
}

bool rs_strict_is_token(const char *text, size_t len)
{
    return len > 0 && token_len(text, len) == len;
}

void rs_strict_init(struct rs_strict *s, size_t head_max)
{
    *s = (struct rs_strict){.head_max = head_max};
}

static size_t refuse(struct rs_strict *s, unsigned status, const char *why)
{
    s->bad_in = s->state;
    s->state = RS_STRICT_BAD;
    s->status = status;
    s->why = why;
    return 0;
}

void rs_strict_refuse(struct rs_strict *s, unsigned status, const char *why)
{
    (void)refuse(s, status, why);
}

/* No control character but tabs. Eight bytes at a time: where one of them may be below a blank, or
 * is 127, it is looked at one by one. */
static bool is_text(const char *p, size_t n)
{
    static const uint64_t ones = UINT64_C(0x0101010101010101), tops = UINT64_C(0x8080808080808080);
    size_t i = 0;

    for (; i + 8 <= n; i += 8) {
        uint64_t x, del;
        bool plain;

        memcpy(&x, p + i, 8);
        del = x ^ (ones * 127);
        plain = !(((x - ones * ' ') & ~x & tops) | ((del - ones) & ~del & tops));
        for (size_t k = 0; !plain && k < 8; k++) {
            unsigned char c = (unsigned char)p[i + k];

            if ((c < ' ' && c != '\t') || c == 127)
                return false;
        }
    }
    for (; i < n; i++) {
        unsigned char c = (unsigned char)p[i];

        if ((c < ' ' && c != '\t') || c == 127)
            return false;
    }
    return true;
}

/* --- lines ------------------------------------------------------------------------------------- */

static const char bare_lf[] = "A line ends with a bare LF.";
static const char control[] = "A control character in the request.";

/* The next line of those that begin at `p`; its length without its end, or -1: it is not complete, or
 * it is refused. A part of a line is judged too: its end may never come. */
static ssize_t next_line(struct rs_strict *s, const char *p, size_t n)
{
    const char *end = n > s->seen ? memchr(p + s->seen, '\n', n - s->seen) : NULL;
    size_t from = s->line, to = end ? (size_t)(end - p) : n;

    if (end && (to == from || end[-1] != '\r')) {
        refuse(s, 400, bare_lf);
        return -1;
    }
    if (to > from && p[to - 1] == '\r')
        to--;
    if (!end && s->seen > from)
        from = s->seen - 1; /* the rest of it was judged when it came */
    if (!is_text(p + from, to > from ? to - from : 0)) {
        refuse(s, 400, control);
        return -1;
    }
    s->seen = end ? (size_t)(end - p) + 1 : n;
    return end ? (ssize_t)(to - s->line) : -1;
}

static bool same(const char *text, size_t len, const char *lower)
{
    return strncasecmp(text, lower, len) == 0;
}

/* --- the request line -------------------------------------------------------------------------- */

/* scheme://authority, and what follows it */
static bool is_absolute(const char *p, size_t n)
{
    size_t scheme = n > 7 && same(p, 7, "http://") ? 7 : n > 8 && same(p, 8, "https://") ? 8 : 0;
    size_t i = scheme;

    while (i < n && (kinds[(unsigned char)p[i]] & 2))
        i++;
    return scheme && i > scheme && (i == n || p[i] == '/' || p[i] == '?');
}

static bool target_ok(const char *method, size_t method_len, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '\t')
            return false;
    }
    if (!n)
        return false;
    if (method_len == 7 && memcmp(method, "CONNECT", 7) == 0)
        return true; /* which is answered 405, whatever it asks for */
    if (n == 1 && p[0] == '*')
        return method_len == 7 && memcmp(method, "OPTIONS", 7) == 0;
    return p[0] == '/' || is_absolute(p, n);
}

static bool is_version(const char *p, size_t n)
{
    return n == 8 && memcmp(p, "HTTP/", 5) == 0 && p[5] >= '0' && p[5] <= '9' && p[6] == '.' &&
           p[7] >= '0' && p[7] <= '9';
}

static void request_line(struct rs_strict *s, const char *p, size_t n)
{
    size_t method = token_len(p, n);
    const char *target = p + method + 1, *end = memrchr(p, ' ', n);
    const char *version = end ? end + 1 : NULL;
    size_t version_len = end ? n - (size_t)(version - p) : 0;

    if (n == 14 && memcmp(p, "PRI * HTTP/2.0", 14) == 0)
        refuse(s, 400, "HTTP/2 is not spoken here.");
    else if (!method || !end || end <= p + method || p[method] != ' ' ||
             memchr(target, ' ', (size_t)(end - target)) || !is_version(version, version_len))
        refuse(s, 400, "Malformed request line.");
    else if (memcmp(version, "HTTP/1.1", 8) != 0 && memcmp(version, "HTTP/1.0", 8) != 0)
        refuse(s, 505, "Only HTTP/1.1 and HTTP/1.0 are spoken here.");
    else if (!target_ok(p, method, target, (size_t)(end - target)))
        refuse(s, 400, "Invalid request target.");
    s->http_10 = version && version_len == 8 && version[7] == '0';
}

/* --- headers ----------------------------------------------------------------------------------- */

static void content_length(struct rs_strict *s, const char *p, size_t n)
{
    uint64_t value = 0;

    if (s->has_length) {
        refuse(s, 400, "More than one Content-Length.");
        return;
    }
    s->has_length = true;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9' || value > (BIGGEST - 9) / 10) {
            refuse(s, 400, "Invalid Content-Length.");
            return;
        }
        value = value * 10 + (uint64_t)(p[i] - '0');
    }
    if (!n)
        refuse(s, 400, "Invalid Content-Length.");
    s->length = value;
}

static void host(struct rs_strict *s, const char *p, size_t n)
{
    if (s->hosts++) {
        refuse(s, 400, "More than one Host header.");
        return;
    }
    for (size_t i = 0; i < n; i++) {
        if (!(kinds[(unsigned char)p[i]] & 2)) {
            refuse(s, 400, "Invalid Host header.");
            return;
        }
    }
}

static void transfer_encoding(struct rs_strict *s, const char *p, size_t n)
{
    if (s->chunked || n != 7 || !same(p, 7, "chunked"))
        refuse(s, 400, "Unsupported Transfer-Encoding.");
    s->chunked = true;
}

static bool mentions(const char *p, size_t n, const char *lower)
{
    size_t len = strlen(lower);

    for (size_t i = 0; i + len <= n; i++) {
        if (same(p + i, len, lower))
            return true;
    }
    return false;
}

/* "name: value" into its parts; false if it is none, and refused. */
static bool field_line(struct rs_strict *s, const char *p, size_t n, size_t *name)
{
    *name = token_len(p, n);
    if (*name && *name < n && p[*name] == ':')
        return true;
    refuse(s, 400,
           p[0] == ' ' || p[0] == '\t'                          ? "A folded header line."
           : *name < n && (p[*name] == ' ' || p[*name] == '\t') ? "A blank in a header's name."
                                                                : "Invalid header.");
    return false;
}

static void header_line(struct rs_strict *s, const char *p, size_t n)
{
    size_t name, at, end = n;

    if (!field_line(s, p, n, &name) ||
        (name != 4 && name != 7 && name != 14 && name != 17)) /* of those below */
        return;
    for (at = name + 1; at < end && (p[at] == ' ' || p[at] == '\t'); at++)
        ;
    while (end > at && (p[end - 1] == ' ' || p[end - 1] == '\t'))
        end--;
    if (name == 4 && same(p, 4, "host"))
        host(s, p + at, end - at);
    else if (name == 7 && same(p, 7, "upgrade"))
        s->upgrades |= mentions(p + at, end - at, "websocket");
    else if (name == 14 && same(p, 14, "content-length"))
        content_length(s, p + at, end - at);
    else if (name == 17 && same(p, 17, "transfer-encoding"))
        transfer_encoding(s, p + at, end - at);
}

static void end_of_head(struct rs_strict *s)
{
    if (s->chunked && (s->has_length || s->http_10)) {
        refuse(s, 400,
               s->http_10 ? "Transfer-Encoding in HTTP/1.0."
                          : "Transfer-Encoding and Content-Length do not go together.");
        return;
    }
    if (!s->hosts && !s->http_10) {
        refuse(s, 400, "No Host header.");
        return;
    }
    s->left = s->length;
    s->state = s->chunked    ? RS_STRICT_CHUNK
               : s->length   ? RS_STRICT_BODY
               : s->upgrades ? RS_STRICT_UPGRADE
                             : RS_STRICT_HEAD;
}

/* What comes next is counted from its own first byte. */
static void next_begins(struct rs_strict *s)
{
    s->seen = s->line = 0;
}

static void begin_head(struct rs_strict *s)
{
    next_begins(s);
    s->state = RS_STRICT_HEAD;
    s->begun = s->http_10 = s->has_length = s->chunked = s->upgrades = false;
    s->hosts = 0;
    s->length = 0;
}

void rs_strict_no_upgrade(struct rs_strict *s)
{
    if (s->state == RS_STRICT_UPGRADE)
        begin_head(s);
}

/* The length of the head when it is complete, else 0. */
static size_t scan_head(struct rs_strict *s, const char *p, size_t n)
{
    while (s->state == RS_STRICT_HEAD) {
        ssize_t len = next_line(s, p, n);

        if (s->state == RS_STRICT_HEAD && s->seen > s->head_max)
            return s->begun ? refuse(s, 431, "Request Header Fields Too Large")
                            : refuse(s, 414, "Request line is too long.");
        if (len < 0)
            return 0;
        if (!s->begun && len == 0) {
            if (s->seen > (size_t)BLANK_LINES_MAX * 2)
                return refuse(s, 400, "Malformed request line.");
        } else if (!s->begun) {
            s->begun = true;
            request_line(s, p + s->line, (size_t)len);
        } else if (len == 0) {
            size_t whole = s->seen;

            end_of_head(s);
            if (s->state == RS_STRICT_BAD)
                return 0;
            if (s->state == RS_STRICT_HEAD)
                begin_head(s);
            next_begins(s);
            return whole;
        } else {
            header_line(s, p + s->line, (size_t)len);
        }
        s->line = s->seen;
    }
    return 0;
}

/* --- chunks ------------------------------------------------------------------------------------ */

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* SIZE or SIZE;EXTENSION, which may be anything. */
static size_t scan_chunk(struct rs_strict *s, const char *p, size_t n)
{
    ssize_t len = next_line(s, p, n);
    size_t i = 0, whole = s->seen;
    uint64_t size = 0;

    if (s->state == RS_STRICT_CHUNK && s->seen > CHUNK_HEAD_MAX)
        return refuse(s, 400, "A chunk's head is too long.");
    if (len < 0)
        return 0;
    for (; i < (size_t)len && hex(p[i]) >= 0; i++) {
        if (size > BIGGEST >> 4)
            return refuse(s, 400, "A chunk's size is too large.");
        size = size << 4 | (uint64_t)hex(p[i]);
    }
    if (!i || (i < (size_t)len && p[i] != ';'))
        return refuse(s, 400, "Invalid chunk size.");
    next_begins(s);
    s->left = size;
    s->state = size ? RS_STRICT_CHUNK_DATA : RS_STRICT_TRAILER;
    return whole;
}

static size_t scan_chunk_end(struct rs_strict *s, const char *p, size_t n)
{
    if (p[0] != '\r' || (n > 1 && p[1] != '\n'))
        return refuse(s, 400, "A chunk is not as long as it says.");
    if (n < 2)
        return 0;
    s->state = RS_STRICT_CHUNK;
    return 2;
}

static size_t scan_trailer(struct rs_strict *s, const char *p, size_t n)
{
    ssize_t len = next_line(s, p, n);
    size_t name, whole = s->seen;

    if (s->state == RS_STRICT_TRAILER && s->left + s->seen > s->head_max)
        return refuse(s, 400, "Request trailers are too large.");
    if (len < 0)
        return 0;
    if (len == 0) {
        begin_head(s);
        return whole;
    }
    if (!field_line(s, p, (size_t)len, &name))
        return 0;
    next_begins(s);
    s->left += whole;
    return whole;
}

/* --- all of it --------------------------------------------------------------------------------- */

static size_t scan_data(struct rs_strict *s, size_t n, enum rs_strict_state then)
{
    size_t take = s->left < n ? (size_t)s->left : n;

    s->left -= take;
    if (!s->left && then == RS_STRICT_HEAD)
        begin_head(s);
    else if (!s->left)
        s->state = then;
    return take;
}

static size_t scan_one(struct rs_strict *s, const char *p, size_t n)
{
    switch (s->state) {
    case RS_STRICT_HEAD:
        return scan_head(s, p, n);
    case RS_STRICT_BODY:
        return scan_data(s, n, RS_STRICT_HEAD);
    case RS_STRICT_CHUNK:
        return scan_chunk(s, p, n);
    case RS_STRICT_CHUNK_DATA:
        return scan_data(s, n, RS_STRICT_CHUNK_END);
    case RS_STRICT_CHUNK_END:
        return scan_chunk_end(s, p, n);
    case RS_STRICT_TRAILER:
        return scan_trailer(s, p, n);
    default:
        return 0;
    }
}

size_t rs_strict_scan(struct rs_strict *s, const char *data, size_t n)
{
    size_t done = 0;

    while (done < n) {
        size_t took = scan_one(s, data + done, n - done);

        if (!took)
            break;
        done += took;
    }
    return done;
}
