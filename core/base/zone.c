#include "core/base/zone.h"

#include "core/base/alloc.h"
#include "core/base/file.h"
#include "core/base/zone-rule.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_MAX = 256 << 10, TIMES_MAX = 10000, TYPES_MAX = 256, FOOTER_MAX = 100 };
enum { HEADER = 44, OFFSET_MAX = 26 * 3600 };
#define TIME_MAX (INT64_C(1) << 55) /* what is farther off is never asked for */

struct rs_zone {
    size_t n; /* transitions */
    int64_t *at;
    int32_t *offset; /* from there on */
    int32_t first;   /* before all of them */
    bool has_rule;
    struct rs_zone_rule rule; /* after all of them */
};

void rs_zone_free(struct rs_zone *z)
{
    if (!z)
        return;
    free(z->at);
    free(z->offset);
    free(z);
}

/* --- dates -------------------------------------------------------------------------------------- */

int64_t rs_civil_days(int64_t year, unsigned month, unsigned day)
{
    int64_t y = year - (month <= 2), era = (y >= 0 ? y : y - 399) / 400;
    unsigned of_era = (unsigned)(y - era * 400);
    unsigned of_year = (153 * (month + (month > 2 ? -3u : 9)) + 2) / 5 + day - 1;

    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

struct rs_civil rs_civil_date(int64_t days)
{
    int64_t z = days + 719468, era = (z >= 0 ? z : z - 146096) / 146097;
    unsigned of_era = (unsigned)(z - era * 146097);
    unsigned year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    unsigned of_year = of_era - (365 * year + year / 4 - year / 100);
    unsigned m = (5 * of_year + 2) / 153;
    unsigned month = m < 10 ? m + 3 : m - 9;

    return (struct rs_civil){
        .year = (int64_t)year + era * 400 + (month <= 2),
        .month = month,
        .day = of_year - (153 * m + 2) / 5 + 1,
        .weekday = (unsigned)(((days % 7) + 11) % 7),
    };
}

/* --- reading a file ----------------------------------------------------------------------------- */

struct cursor {
    const unsigned char *p;
    size_t left;
};

struct counts {
    uint32_t isut, isstd, leap, time, type, chars;
    char version;
};

static uint32_t be32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static int64_t be64(const unsigned char *p)
{
    return (int64_t)((uint64_t)be32(p) << 32 | be32(p + 4));
}

static const unsigned char *take(struct cursor *c, size_t n)
{
    const unsigned char *p = c->p;

    if (n > c->left)
        return NULL;
    c->p += n;
    c->left -= n;
    return p;
}

static int read_header(struct cursor *c, struct counts *n, struct rs_error *err)
{
    const unsigned char *h = take(c, HEADER);

    if (!h || memcmp(h, "TZif", 4) != 0)
        return rs_error_set(err, RS_INVALID, "expected a TZif file, it is none");
    *n = (struct counts){.version = (char)h[4],
                         .isut = be32(h + 20),
                         .isstd = be32(h + 24),
                         .leap = be32(h + 28),
                         .time = be32(h + 32),
                         .type = be32(h + 36),
                         .chars = be32(h + 40)};
    if (n->time > TIMES_MAX || n->type == 0 || n->type > TYPES_MAX || n->chars > FILE_MAX ||
        n->isut > TYPES_MAX || n->isstd > TYPES_MAX || n->leap > FILE_MAX)
        return rs_error_set(err, RS_INVALID,
                            "expected counts that make sense, found %u transitions of %u types",
                            n->time, n->type);
    return 0;
}

/* The data block after a header; times of `width` bytes. */
static size_t block_size(const struct counts *n, size_t width)
{
    return n->time * width + n->time + n->type * (size_t)6 + n->chars + n->leap * (width + 4) +
           n->isstd + n->isut;
}

static bool is_offset(int32_t seconds)
{
    return seconds >= -OFFSET_MAX && seconds <= OFFSET_MAX;
}

static int read_block(struct rs_zone *z, struct cursor *c, const struct counts *n, size_t width,
                      struct rs_error *err)
{
    const unsigned char *p = take(c, block_size(n, width));
    const unsigned char *kinds = p ? p + n->time * width : NULL;
    const unsigned char *types = p ? kinds + n->time : NULL;

    if (!p)
        return rs_error_set(err, RS_INVALID, "the file ends too early");
    if (n->leap)
        return rs_error_set(err, RS_INVALID, "it counts leap seconds, which clocks here do not");
    z->n = n->time;
    z->at = rs_alloc((n->time + 1) * sizeof(*z->at));
    z->offset = rs_alloc((n->time + 1) * sizeof(*z->offset));
    for (size_t i = 0; i < n->type; i++)
        if (!is_offset((int32_t)be32(types + 6 * i)))
            return rs_error_set(err, RS_INVALID, "type %zu is more than 26 hours from UTC", i);
    z->first = (int32_t)be32(types);
    for (size_t i = 0; i < n->time; i++) {
        int64_t at = width == 8 ? be64(p + 8 * i) : (int32_t)be32(p + 4 * i);

        at = at < -TIME_MAX ? -TIME_MAX : at;
        if (at > TIME_MAX || (i && at <= z->at[i - 1] && at > -TIME_MAX) || kinds[i] >= n->type)
            return rs_error_set(err, RS_INVALID,
                                "transition %zu is not later than the one before, or of no type",
                                i);
        z->at[i] = at;
        z->offset[i] = (int32_t)be32(types + (size_t)6 * kinds[i]);
    }
    return 0;
}

/* "\nTZ\n" */
static int read_footer(struct rs_zone *z, const struct cursor *c, struct rs_error *err)
{
    char text[FOOTER_MAX + 1];
    const unsigned char *end =
        c->left > 1 && *c->p == '\n' ? memchr(c->p + 1, '\n', c->left - 1) : NULL;
    size_t len = end ? (size_t)(end - c->p) - 1 : 0;

    if (!end || len > FOOTER_MAX)
        return rs_error_set(err, RS_INVALID, "the file has no footer of at most %d bytes",
                            FOOTER_MAX);
    memcpy(text, c->p + 1, len);
    text[len] = '\0';
    if (len == 0)
        return 0; /* nobody knows what comes after the table */
    if (strlen(text) != len || !rs_zone_rule_parse(&z->rule, text))
        return rs_error_set(err, RS_INVALID, "expected a rule as in TZ, found \"%.60s\"", text);
    z->has_rule = true;
    return 0;
}

int rs_zone_parse(struct rs_zone **ret, const void *bytes, size_t n, struct rs_error *err)
{
    rs_auto(rs_zone_freep) struct rs_zone *z = rs_alloc(sizeof(*z));
    struct cursor c = {bytes, n};
    struct counts counts = {0};

    if (read_header(&c, &counts, err) < 0)
        return -1;
    if (counts.version < '2') {
        if (read_block(z, &c, &counts, 4, err) < 0)
            return -1;
        *ret = rs_steal(z);
        return 0;
    }
    /* The first block is for those who know nothing better. */
    if (!take(&c, block_size(&counts, 4)))
        return rs_error_set(err, RS_INVALID, "the file ends too early");
    if (read_header(&c, &counts, err) < 0 || read_block(z, &c, &counts, 8, err) < 0 ||
        read_footer(z, &c, err) < 0)
        return -1;
    *ret = rs_steal(z);
    return 0;
}

/* --- finding it --------------------------------------------------------------------------------- */

static bool is_name(const char *name)
{
    size_t n = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+-/");

    return n > 0 && n < 100 && name[n] == '\0' && *name != '/' && name[n - 1] != '/' &&
           !strstr(name, "//");
}

/* 1: there is none in that folder. */
static int load_from(struct rs_zone **ret, const char *dir, const char *name, struct rs_error *err)
{
    rs_auto(rs_freep) char *path = rs_asprintf("%s/%s", dir, name), *bytes = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    int r;

    if (fd < 0)
        return 1;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return 1;
    }
    if (st.st_size > FILE_MAX) {
        close(fd);
        return rs_error_set(err, RS_INVALID, "%s: expected at most %d bytes, it has %lld", path,
                            FILE_MAX, (long long)st.st_size);
    }
    bytes = rs_alloc((size_t)st.st_size + 1);
    r = rs_file_read(fd, bytes, (size_t)st.st_size, 0);
    if (r < 0)
        rs_error_errno(err, errno, "%s", path);
    close(fd);
    if (r == 0 && rs_zone_parse(ret, bytes, (size_t)st.st_size, err) < 0)
        return rs_error_wrap(err, "%s", path);
    return r;
}

int rs_zone_load(struct rs_zone **ret, const char *name, struct rs_error *err)
{
    static const char *const dirs[] = {"/usr/share/zoneinfo", "/usr/lib/zoneinfo",
                                       "/usr/share/lib/zoneinfo", "/etc/zoneinfo"};
    const char *own = getenv("TZDIR");
    int r = 1;

    if (strcmp(name, "UTC") == 0) {
        *ret = rs_alloc(sizeof(**ret));
        return 0;
    }
    if (!is_name(name))
        return rs_error_set(err, RS_INVALID,
                            "expected the name of a time zone such as \"Europe/Berlin\", found "
                            "\"%.60s\"",
                            name);
    if (own && *own == '/')
        r = load_from(ret, own, name, err);
    for (size_t i = 0; i < RS_COUNT(dirs) && r > 0; i++)
        r = load_from(ret, dirs[i], name, err);
    if (r > 0)
        return rs_error_set(err, RS_NOT_FOUND,
                            "expected a time zone of this machine, found \"%.60s\", which is not "
                            "in %s (install tzdata, or use UTC)",
                            name, own && *own == '/' ? own : dirs[0]);
    return r;
}

/* --- asking it ---------------------------------------------------------------------------------- */

/* Transitions at or before `t`. */
static size_t count_until(const struct rs_zone *z, int64_t t)
{
    size_t low = 0, high = z->n;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (z->at[mid] <= t)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

int32_t rs_zone_offset(const struct rs_zone *z, int64_t t)
{
    size_t n = z ? count_until(z, t) : 0;

    if (!z)
        return 0;
    if (n == z->n && z->has_rule)
        return rs_zone_rule_offset(&z->rule, t);
    return n ? z->offset[n - 1] : z->first;
}

enum { NEAR_MAX = 16 };

/* Those from `from` to `to`, which are not far from each other; the order is any. */
static size_t transitions(const struct rs_zone *z, int64_t from, int64_t to, int64_t ret[NEAR_MAX])
{
    int64_t end = z->n ? z->at[z->n - 1] : INT64_MIN, rule[RS_ZONE_RULE_NEAR];
    size_t n = 0;

    for (size_t i = count_until(z, from - 1); i < z->n && z->at[i] <= to && n < NEAR_MAX / 2; i++)
        ret[n++] = z->at[i];
    if (!z->has_rule)
        return n;
    for (size_t i = 0, k = rs_zone_rule_changes(&z->rule, from, rule); i < k; i++)
        if (rule[i] > end && rule[i] >= from && rule[i] <= to)
            ret[n++] = rule[i];
    return n;
}

bool rs_zone_steady(const struct rs_zone *z, int64_t day, int32_t *ret)
{
    int64_t near[NEAR_MAX], from = day * 86400 - OFFSET_MAX, to = from + 86400 + 2 * OFFSET_MAX;

    *ret = rs_zone_offset(z, from);
    return !z || transitions(z, from, to, near) == 0;
}

unsigned rs_zone_instants(const struct rs_zone *z, int64_t local, int64_t ret[2])
{
    int64_t near[NEAR_MAX], offsets[NEAR_MAX + 1], gap = 0;
    size_t n_near, n_offsets = 0;
    unsigned found = 0;

    if (!z) {
        ret[0] = local;
        return 1;
    }
    n_near = transitions(z, local - OFFSET_MAX, local + OFFSET_MAX, near);
    offsets[n_offsets++] = rs_zone_offset(z, local - OFFSET_MAX - 1);
    for (size_t i = 0; i < n_near; i++) {
        int64_t before = rs_zone_offset(z, near[i] - 1), after = rs_zone_offset(z, near[i]);

        offsets[n_offsets++] = after;
        if (near[i] + before <= local && local < near[i] + after)
            gap = near[i];
    }
    for (size_t i = 0; i < n_offsets && found < 2; i++) {
        int64_t t = local - offsets[i];

        if (rs_zone_offset(z, t) != offsets[i] || (found && ret[0] == t))
            continue;
        ret[found++] = t;
    }
    if (found == 2 && ret[0] > ret[1]) {
        int64_t swap = ret[0];

        ret[0] = ret[1];
        ret[1] = swap;
    }
    if (!found)
        ret[0] = gap ? gap : local - offsets[0];
    return found;
}
