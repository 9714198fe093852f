// C++: asynchronous tasks, exceptions over threads, files and containers.
#include <fstream>
#include <future>
#include <iostream>
#include <map>
#include <stdexcept>
#include <thread>

extern "C" int sum(const int *, int);

int main() {
    std::ofstream("words.txt") << "one two two three three three";
    std::ifstream file("words.txt");
    std::map<std::string, int> counts;
    for (std::string word; file >> word;) counts[word]++;
    auto squared = std::async(std::launch::async, [] { return 6 * 6; });
    auto failed = std::async(std::launch::async, []() -> int { throw std::runtime_error("thrown"); });
    std::cout << counts["three"] << " " << squared.get();
    try { failed.get(); } catch (const std::exception &error) { std::cout << " " << error.what(); }
    int numbers[] = {1, 2, 39};
    std::thread([&] { numbers[0]--; }).join();
    std::cout << " " << sum(numbers, 3) << " " << std::thread::hardware_concurrency() << std::endl;
}
