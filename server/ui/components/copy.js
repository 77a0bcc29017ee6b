import { say } from "./toast.js";

/** Puts text into the clipboard and says `done`; where the browser keeps its clipboard, shows the text. */
export async function copy(text, done) {
  try {
    await navigator.clipboard.writeText(text);
    say(done);
  } catch {
    say(text); // without a secure connection browsers keep their clipboard
  }
}
