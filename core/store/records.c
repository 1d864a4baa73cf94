#include "core/store/records.h"

#include "core/base/alloc.h"
#include "core/base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { APPLICATION_ID = 0x72737276, /* "rsrv" */ ASIDE_MAX = 1000 };

struct rs_records {
    sqlite3 *db;
    char *path;
};

/* What became of a file that is there. */
enum finding { GOOD, DAMAGED, FOREIGN, NEWER, UNUSABLE };

static int fail(const struct rs_records *r, const char *what, struct rs_error *err)
{
    (void)rs_error_set(err, RS_SYSTEM, "cannot %s '%s': %s", what, r->path,
                       r->db ? sqlite3_errmsg(r->db) : "no memory");
    if (r->db && !sqlite3_get_autocommit(r->db))
        (void)sqlite3_exec(r->db, "ROLLBACK", NULL, NULL, NULL);
    return -1;
}

static int run(struct rs_records *r, const char *sql, const char *what, struct rs_error *err)
{
    if (sqlite3_exec(r->db, sql, NULL, NULL, NULL) != SQLITE_OK)
        return fail(r, what, err);
    return 0;
}

/* -1: it cannot be read. */
static int64_t pragma(struct rs_records *r, const char *sql)
{
    sqlite3_stmt *s = NULL;
    int64_t value = -1;

    if (sqlite3_prepare_v2(r->db, sql, -1, &s, NULL) == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW)
        value = sqlite3_column_int64(s, 0);
    (void)sqlite3_finalize(s);
    return value;
}

static bool is_sound(struct rs_records *r)
{
    sqlite3_stmt *s = NULL;
    bool ok = sqlite3_prepare_v2(r->db, "PRAGMA quick_check(1)", -1, &s, NULL) == SQLITE_OK &&
              sqlite3_step(s) == SQLITE_ROW &&
              strcmp((const char *)sqlite3_column_text(s, 0), "ok") == 0;

    (void)sqlite3_finalize(s);
    return ok;
}

static enum finding examine(struct rs_records *r)
{
    int64_t format = pragma(r, "PRAGMA user_version");
    int64_t tables = pragma(r, "SELECT count(*) FROM sqlite_schema");
    int code = sqlite3_errcode(r->db);

    if (format < 0 || tables < 0)
        return code == SQLITE_NOTADB || code == SQLITE_CORRUPT ? DAMAGED : UNUSABLE;
    if (!format && !tables)
        return GOOD; /* it is new */
    if (pragma(r, "PRAGMA application_id") != APPLICATION_ID)
        return FOREIGN;
    if (format > RS_RECORDS_FORMAT)
        return NEWER;
    return is_sound(r) ? GOOD : DAMAGED;
}

/* --- formats ------------------------------------------------------------------------------------- */

/* [n]: from format n to n + 1. */
static const char *const upgrades[RS_RECORDS_FORMAT] = {
    "CREATE TABLE records (kind TEXT NOT NULL, name TEXT NOT NULL, data BLOB NOT NULL, "
    "PRIMARY KEY (kind, name)) WITHOUT ROWID;",
};

static int upgrade(struct rs_records *r, struct rs_error *err)
{
    int64_t format = pragma(r, "PRAGMA user_version");
    char stamp[96];

    if (format == RS_RECORDS_FORMAT)
        return 0;
    if (rs_records_begin(r, err) < 0)
        return -1;
    for (int64_t i = format < 0 ? 0 : format; i < RS_RECORDS_FORMAT; i++) {
        if (run(r, upgrades[i], "bring up to date", err) < 0)
            return -1;
    }
    snprintf(stamp, sizeof(stamp), "PRAGMA application_id = %d; PRAGMA user_version = %d",
             APPLICATION_ID, RS_RECORDS_FORMAT);
    if (run(r, stamp, "bring up to date", err) < 0)
        return -1;
    return rs_records_commit(r, err);
}

/* --- opening ------------------------------------------------------------------------------------- */

static void close_db(struct rs_records *r)
{
    (void)sqlite3_close(r->db);
    r->db = NULL;
}

static int open_db(struct rs_records *r, struct rs_error *err)
{
    static const char set[] = "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; "
                              "PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF";
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;

    if (sqlite3_open_v2(r->path, &r->db, flags, NULL) != SQLITE_OK)
        return fail(r, "open", err);
    (void)sqlite3_extended_result_codes(r->db, 0);
    (void)sqlite3_exec(r->db, set, NULL, NULL, NULL); /* what is wrong with it comes out below */
    return 0;
}

/* With the files that SQLite keeps beside it, which belong to it. */
static int move_aside(struct rs_records *r, const char *why, char **aside, struct rs_error *err)
{
    static const char *const beside[] = {"-wal", "-shm", "-journal"};
    rs_auto(rs_freep) char *to = NULL;

    close_db(r);
    for (int i = 1; i <= ASIDE_MAX; i++) {
        free(to);
        to = rs_asprintf("%s.%s-%d", r->path, why, i);
        if (access(to, F_OK) < 0)
            break;
    }
    if (rename(r->path, to) < 0)
        return rs_error_errno(err, errno, "cannot move '%s' to '%s'", r->path, to);
    for (size_t i = 0; i < RS_COUNT(beside); i++) {
        rs_auto(rs_freep) char *from = rs_asprintf("%s%s", r->path, beside[i]);
        rs_auto(rs_freep) char *other = rs_asprintf("%s%s", to, beside[i]);

        (void)rename(from, other);
    }
    *aside = rs_steal(to);
    return open_db(r, err);
}

int rs_records_open(struct rs_records **ret, const char *path, char **aside, struct rs_error *err)
{
    rs_auto(rs_records_freep) struct rs_records *r = rs_alloc(sizeof(*r));
    enum finding found;

    *aside = NULL;
    r->path = rs_strdup(path);
    if (open_db(r, err) < 0)
        return -1;
    found = examine(r);
    if (found == NEWER)
        return rs_error_set(
            err, RS_CONFLICT,
            "'%s' has format %lld, this rserve knows %d: start the newer rserve, or "
            "give this one another folder with --state-dir",
            path, (long long)pragma(r, "PRAGMA user_version"), RS_RECORDS_FORMAT);
    if (found == UNUSABLE)
        return fail(r, "read", err);
    if (found != GOOD && move_aside(r, found == DAMAGED ? "damaged" : "foreign", aside, err) < 0)
        return -1;
    if (upgrade(r, err) < 0)
        return -1;
    *ret = rs_steal(r);
    return 0;
}

void rs_records_free(struct rs_records *r)
{
    if (!r)
        return;
    close_db(r);
    free(r->path);
    free(r);
}

const char *rs_records_path(const struct rs_records *r)
{
    return r->path;
}

/* --- use ----------------------------------------------------------------------------------------- */

int rs_records_begin(struct rs_records *r, struct rs_error *err)
{
    if (!sqlite3_get_autocommit(r->db))
        (void)sqlite3_exec(r->db, "ROLLBACK", NULL, NULL, NULL);
    return run(r, "BEGIN IMMEDIATE", "write", err);
}

int rs_records_commit(struct rs_records *r, struct rs_error *err)
{
    return run(r, "COMMIT", "write", err);
}

static void bind(sqlite3_stmt *s, const char *kind, const char *name)
{
    (void)sqlite3_bind_text(s, 1, kind, -1, SQLITE_STATIC);
    if (name)
        (void)sqlite3_bind_text(s, 2, name, -1, SQLITE_STATIC);
}

int rs_records_put(struct rs_records *r, const char *kind, const char *name, const void *data,
                   size_t len, struct rs_error *err)
{
    sqlite3_stmt *s = NULL;
    int code =
        sqlite3_prepare_v2(r->db, "INSERT OR REPLACE INTO records VALUES (?, ?, ?)", -1, &s, NULL);

    if (code == SQLITE_OK) {
        bind(s, kind, name);
        (void)sqlite3_bind_blob64(s, 3, len ? data : "", len, SQLITE_STATIC);
        code = sqlite3_step(s);
    }
    (void)sqlite3_finalize(s);
    return code == SQLITE_DONE ? 0 : fail(r, "write", err);
}

struct prune {
    bool (*keep)(const char *name, void *arg);
    void *arg;
    struct rs_buf names; /* each ends with NUL */
};

static void note_name(const char *name, const char *data, size_t len, void *arg)
{
    struct prune *p = arg;

    (void)data;
    (void)len;
    if (!p->keep(name, p->arg))
        rs_buf_append(&p->names, name, strlen(name) + 1);
}

static int remove_one(struct rs_records *r, const char *kind, const char *name,
                      struct rs_error *err)
{
    sqlite3_stmt *s = NULL;
    int code =
        sqlite3_prepare_v2(r->db, "DELETE FROM records WHERE kind = ? AND name = ?", -1, &s, NULL);

    if (code == SQLITE_OK) {
        bind(s, kind, name);
        code = sqlite3_step(s);
    }
    (void)sqlite3_finalize(s);
    return code == SQLITE_DONE ? 0 : fail(r, "write", err);
}

int rs_records_prune(struct rs_records *r, const char *kind,
                     bool (*keep)(const char *name, void *arg), void *arg, struct rs_error *err)
{
    struct prune p = {.keep = keep, .arg = arg};
    int result = rs_records_each(r, kind, note_name, &p, err);
    const char *at = rs_buf_text(&p.names), *end = at + rs_buf_len(&p.names);

    for (; result == 0 && at < end; at += strlen(at) + 1)
        result = remove_one(r, kind, at, err);
    rs_buf_fini(&p.names);
    return result;
}

int rs_records_each(struct rs_records *r, const char *kind,
                    void (*fn)(const char *name, const char *data, size_t len, void *arg),
                    void *arg, struct rs_error *err)
{
    sqlite3_stmt *s = NULL;
    int code = sqlite3_prepare_v2(
        r->db, "SELECT name, data FROM records WHERE kind = ? ORDER BY name", -1, &s, NULL);

    if (code == SQLITE_OK) {
        bind(s, kind, NULL);
        while ((code = sqlite3_step(s)) == SQLITE_ROW) {
            const char *data = sqlite3_column_blob(s, 1);

            fn((const char *)sqlite3_column_text(s, 0), data ? data : "",
               (size_t)sqlite3_column_bytes(s, 1), arg);
        }
    }
    (void)sqlite3_finalize(s);
    return code == SQLITE_DONE ? 0 : fail(r, "read", err);
}
