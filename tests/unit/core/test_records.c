#include "core/store/records.h"

#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "tests/unit/check_main.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[64], path[96];

static void setup(void)
{
    snprintf(folder, sizeof(folder), "/tmp/rserve-records-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/x.db", folder);
}

static void teardown(void)
{
    DIR *d = opendir(folder);

    for (struct dirent *e; (e = readdir(d));)
        (void)unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
    ck_assert_int_eq(rmdir(folder), 0);
}

static struct rs_records *open_it(void)
{
    struct rs_records *r = NULL;
    char *aside = NULL;
    struct rs_error err = {0};

    ck_assert_msg(rs_records_open(&r, path, &aside, &err) == 0, "%s", err.msg);
    ck_assert_ptr_null(aside);
    return r;
}

static void put(struct rs_records *r, const char *kind, const char *name, const char *text)
{
    ck_assert_int_eq(rs_records_put(r, kind, name, text, strlen(text), NULL), 0);
}

static void note(const char *name, const char *data, size_t len, void *arg)
{
    rs_buf_printf(arg, "%s=%.*s;", name, (int)len, data);
}

static void expect(struct rs_records *r, const char *kind, const char *text)
{
    struct rs_buf b = {0};

    ck_assert_int_eq(rs_records_each(r, kind, note, &b, NULL), 0);
    ck_assert_str_eq(rs_buf_text(&b), text);
    rs_buf_fini(&b);
}

static bool begins_with(const char *name, void *arg)
{
    return name[0] == *(const char *)arg;
}

START_TEST(keeps_what_was_committed)
{
    struct rs_records *r = open_it();

    ck_assert_str_eq(rs_records_path(r), path);
    expect(r, "app", "");
    ck_assert_int_eq(rs_records_begin(r, NULL), 0);
    put(r, "app", "b", "2");
    put(r, "app", "a", "");
    put(r, "other", "a", "7");
    put(r, "app", "b", "3");
    ck_assert_int_eq(rs_records_put(r, "app", "c", "\0x", 2, NULL), 0);
    ck_assert_int_eq(rs_records_commit(r, NULL), 0);
    rs_records_free(r);
    r = open_it();
    expect(r, "other", "a=7;");
    ck_assert_int_eq(rs_records_begin(r, NULL), 0);
    ck_assert_int_eq(rs_records_prune(r, "app", begins_with, (char[]){'b'}, NULL), 0);
    ck_assert_int_eq(rs_records_commit(r, NULL), 0);
    expect(r, "app", "b=3;");
    /* what was not committed is gone: when another transaction begins, and when the file is closed */
    ck_assert_int_eq(rs_records_begin(r, NULL), 0);
    put(r, "app", "x", "1");
    ck_assert_int_eq(rs_records_begin(r, NULL), 0);
    expect(r, "app", "b=3;");
    put(r, "app", "y", "1");
    rs_records_free(r);
    r = open_it();
    expect(r, "app", "b=3;");
    rs_records_free(r);
    rs_records_free(NULL);
}
END_TEST

/* A process that ends without a word: what was committed is there. */
START_TEST(survives_a_kill)
{
    struct rs_records *r;
    pid_t child = fork();
    int status;

    if (child == 0) {
        r = open_it();
        (void)!rs_records_begin(r, NULL);
        put(r, "app", "a", "kept");
        (void)!rs_records_commit(r, NULL);
        (void)!rs_records_begin(r, NULL);
        put(r, "app", "a", "lost");
        (void)raise(SIGKILL);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status));
    r = open_it();
    expect(r, "app", "a=kept;");
    rs_records_free(r);
}
END_TEST

static void write_file(const char *data, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    ck_assert_int_eq(write(fd, data, len), (ssize_t)len);
    close(fd);
}

static void run_sql(const char *sql)
{
    sqlite3 *db;

    ck_assert_int_eq(sqlite3_open(path, &db), SQLITE_OK);
    ck_assert_msg(sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK, "%s", sqlite3_errmsg(db));
    ck_assert_int_eq(sqlite3_close(db), SQLITE_OK);
}

static void make_good(void)
{
    struct rs_records *r = open_it();

    (void)!rs_records_begin(r, NULL);
    put(r, "app", "a", "1");
    (void)!rs_records_commit(r, NULL);
    rs_records_free(r);
}

static void make_text(void)
{
    static const char text[] =
        "This is a text that somebody keeps here. It is longer than a header "
        "of a database, which has one hundred bytes.";

    write_file(text, sizeof(text));
}

static void make_damaged(void)
{
    char junk[512];
    int fd;

    make_good();
    memset(junk, 0xa5, sizeof(junk));
    fd = open(path, O_WRONLY);
    ck_assert_int_eq(pwrite(fd, junk, sizeof(junk), 4096), (ssize_t)sizeof(junk));
    close(fd);
}

static void make_foreign(void)
{
    run_sql("CREATE TABLE mine (x); INSERT INTO mine VALUES (1)");
}

static void make_empty(void)
{
    write_file("", 0);
}

static const struct {
    void (*make)(void);
    const char *aside; /* what its name ends with; NULL: it is good */
} found[] = {
    {make_good, NULL},
    {make_empty, NULL},
    {make_text, "x.db.damaged-1"},
    {make_damaged, "x.db.damaged-1"},
    {make_foreign, "x.db.foreign-1"},
};

START_TEST(moves_aside_what_it_cannot_use)
{
    struct rs_records *r = NULL;
    rs_auto(rs_freep) char *aside = NULL;
    struct stat st;

    found[_i].make();
    ck_assert_int_eq(rs_records_open(&r, path, &aside, NULL), 0);
    ck_assert_int_eq(aside != NULL, found[_i].aside != NULL);
    if (aside) {
        ck_assert_str_eq(strrchr(aside, '/') + 1, found[_i].aside);
        ck_assert_int_eq(stat(aside, &st), 0);
        ck_assert_int_gt(st.st_size, 0);
    }
    ck_assert_int_eq(rs_records_begin(r, NULL), 0);
    put(r, "app", "z", "9");
    ck_assert_int_eq(rs_records_commit(r, NULL), 0);
    expect(r, "app", found[_i].make == make_good ? "a=1;z=9;" : "z=9;");
    rs_records_free(r);
}
END_TEST

START_TEST(leaves_a_newer_one_alone)
{
    struct rs_records *r = NULL;
    char *aside = NULL;
    struct rs_error err = {0};

    make_good();
    run_sql("PRAGMA user_version = 7");
    ck_assert_int_eq(rs_records_open(&r, path, &aside, &err), -1);
    ck_assert_int_eq(err.code, RS_CONFLICT);
    ck_assert_ptr_nonnull(strstr(err.msg, "has format 7, this rserve knows 1"));
    ck_assert_ptr_null(aside);
    run_sql("PRAGMA user_version = 1");
    r = open_it();
    expect(r, "app", "a=1;");
    rs_records_free(r);
}
END_TEST

START_TEST(tells_when_it_cannot_write)
{
    struct rs_records *r = open_it();
    struct rlimit limit;
    rs_auto(rs_freep) char *much = rs_alloc(1 << 20);
    struct rs_error err = {0};
    int result;

    ck_assert_int_eq(rs_records_begin(r, NULL), 0);
    put(r, "app", "a", "1");
    ck_assert_int_eq(rs_records_commit(r, NULL), 0);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &limit);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){256 << 10, limit.rlim_max});
    ck_assert_int_eq(rs_records_begin(r, NULL), 0);
    result = rs_records_put(r, "app", "a", much, 1 << 20, &err);
    if (result == 0)
        result = rs_records_commit(r, &err);
    ck_assert_int_eq(result, -1);
    ck_assert_msg(strstr(err.msg, "cannot write '") == err.msg, "%s", err.msg);
    setrlimit(RLIMIT_FSIZE, &limit);
    expect(r, "app", "a=1;"); /* what was there before is not lost, and it goes on */
    ck_assert_int_eq(rs_records_begin(r, NULL), 0);
    put(r, "app", "b", "2");
    ck_assert_int_eq(rs_records_commit(r, NULL), 0);
    rs_records_free(r);
}
END_TEST

START_TEST(needs_a_folder)
{
    struct rs_records *r = NULL;
    char *aside = NULL;
    struct rs_error err = {0};

    ck_assert_int_eq(rs_records_open(&r, "/nonexistent/x.db", &aside, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.msg, "cannot open '/nonexistent/x.db'"));
}
END_TEST

RS_CHECK_MAIN("records", tcase_add_checked_fixture(tc, setup, teardown);
              tcase_add_test(tc, keeps_what_was_committed); tcase_add_test(tc, survives_a_kill);
              tcase_add_loop_test(tc, moves_aside_what_it_cannot_use, 0, RS_COUNT(found));
              tcase_add_test(tc, leaves_a_newer_one_alone);
              tcase_add_test(tc, tells_when_it_cannot_write); tcase_add_test(tc, needs_a_folder);)
