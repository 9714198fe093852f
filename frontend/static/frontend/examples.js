// Programs to begin with: one line in every language, and some that show what the page can do.

const HELLO = {
  bash: "echo 'Hello, Sandrun!'\n",
  c: '#include <stdio.h>\n\nint main(void) { puts("Hello, Sandrun!"); }\n',
  cpp: '#include <iostream>\n\nint main() { std::cout << "Hello, Sandrun!\\n"; }\n',
  go: 'package main\n\nimport "fmt"\n\nfunc main() { fmt.Println("Hello, Sandrun!") }\n',
  java: 'class Main {\n    public static void main(String[] args) {\n'
    + '        System.out.println("Hello, Sandrun!");\n    }\n}\n',
  lua: 'print("Hello, Sandrun!")\n',
  node: "console.log('Hello, Sandrun!')\n",
  perl: 'print "Hello, Sandrun!\\n";\n',
  php: '<?php\necho "Hello, Sandrun!\\n";\n',
  python3: "print('Hello, Sandrun!')\n",
  r: 'cat("Hello, Sandrun!\\n")\n',
  ruby: "puts 'Hello, Sandrun!'\n",
  rust: 'fn main() {\n    println!("Hello, Sandrun!");\n}\n',
  sh: "echo 'Hello, Sandrun!'\n",
};

export function hello(language) {
  return HELLO[language.toLowerCase()] ?? HELLO[language.replace(/[\d.]+$/, "").toLowerCase()] ?? "";
}

/** By name: what it is called, its language, its files in examples/, the first starts. */
export const examples = {
  plot: { title: "Plot with live output", language: "python3", files: ["plot.py"] },
  colours: { title: "Colours and progress", language: "python3", files: ["colours.py"] },
  words: {
    title: "Standard input and arguments", language: "python3", files: ["words.py"], args: "--top 3",
    stdin: "the quick brown fox jumps over the lazy dog and the cat\n",
  },
  project: {
    title: "Several files", language: "python3", files: ["project/main.py", "project/stats.py", "project/data.csv"],
  },
  files: { title: "Files of many kinds", language: "python3", files: ["files.py"] },
  threads: { title: "Worker threads", language: "node", files: ["threads.js"] },
};
