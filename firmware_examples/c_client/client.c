/* Example client for flight software: connect to the socket of a `unix:` sink and print one line per record.
 *
 *     cc -std=c11 -Wall -Wextra -Werror -o client client.c
 *     ./client /run/spatialnet-edge/results.sock
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "spatialnet_record.h"

static void print_record(const struct spatialnet_record *record)
{
    printf("%" PRIu64 " age_us=%" PRIu32 " flags=%u bundle=", record->seq, record->age_us, (unsigned)record->flags);
    for (int index = 0; index < SPATIALNET_BUNDLE_BYTES; index++)
        printf("%02x", (unsigned)record->bundle[index]);
    for (int index = 0; index < record->answers_used; index++) {
        const struct spatialnet_answer *answer = &record->answers[index];
        printf(" %u:%u:%d:%.6f:%" PRIx64, (unsigned)answer->head, (unsigned)answer->kind, answer->label, (double)answer->value,
               answer->present);
    }
    putchar('\n');
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (argc != 2 || strlen(argv[1]) >= sizeof address.sun_path) {
        fprintf(stderr, "usage: %s SOCKET\n", argv[0]);
        return 2;
    }
    strcpy(address.sun_path, argv[1]);
    int descriptor = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    if (descriptor < 0 || connect(descriptor, (struct sockaddr *)&address, sizeof address) < 0) {
        fprintf(stderr, "%s: %s\n", argv[1], strerror(errno));
        return 1;
    }
    uint8_t buffer[SPATIALNET_MOST_BYTES];
    struct spatialnet_record record;
    for (;;) {
        ssize_t length = recv(descriptor, buffer, sizeof buffer, 0);
        if (length <= 0)
            break; /* the runtime has ended */
        int status = spatialnet_read(buffer, (size_t)length, &record);
        if (status == SPATIALNET_OK)
            print_record(&record);
        else
            fprintf(stderr, "a record was not readable: %d\n", status);
    }
    close(descriptor);
    return 0;
}
