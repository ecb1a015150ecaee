for (const button of document.querySelectorAll("button")) {
  const code = document.getElementById(button.dataset.of);
  button.hidden = false;
  button.addEventListener("click", async () => {
    getSelection().selectAllChildren(code);
    let copied = document.execCommand("copy");
    if (!copied) {
      try { await navigator.clipboard.writeText(code.textContent); copied = true; } catch {}
    }
    button.textContent = copied ? "copied" : "selected: press Ctrl+C or Cmd+C";
  });
}
