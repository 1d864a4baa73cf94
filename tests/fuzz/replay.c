/* Runs a fuzz target over a corpus without a fuzzing engine: every file of the folders named. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *folder, const char *name)
{
    char path[4096];
    uint8_t *data = NULL;
    size_t size = 0, got;
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    f = fopen(path, "rb");
    if (!f) {
        perror(path);
        return -1;
    }
    do {
        /* exactly as long as the input, so that reading past its end is seen */
        uint8_t chunk[65536];

        got = fread(chunk, 1, sizeof(chunk), f);
        data = realloc(data, size + got + (size + got == 0));
        if (!data)
            abort();
        for (size_t i = 0; i < got; i++)
            data[size + i] = chunk[i];
        size += got;
    } while (got > 0);
    fclose(f);
    (void)LLVMFuzzerTestOneInput(data, size);
    free(data);
    return 0;
}

int main(int argc, char *argv[])
{
    int passed = 0, failed = 0;

    for (int i = 1; i < argc; i++) {
        DIR *dir = opendir(argv[i]);
        struct dirent *entry;

        if (!dir) {
            perror(argv[i]);
            return EXIT_FAILURE;
        }
        while ((entry = readdir(dir))) {
            if (entry->d_name[0] == '.')
                continue;
            if (replay(argv[i], entry->d_name) < 0)
                failed++;
            else
                passed++;
        }
        closedir(dir);
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed || !passed ? EXIT_FAILURE : EXIT_SUCCESS;
}
