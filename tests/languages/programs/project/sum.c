int sum(const int *numbers, int count) {
    int all = 0;
    for (int i = 0; i < count; i++) all += numbers[i];
    return all;
}
