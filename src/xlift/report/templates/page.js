(function () {
  "use strict";
  var data = JSON.parse(document.getElementById("figure-data").textContent);
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  var select = document.getElementById("target");
  var search = document.getElementById("filter");
  var stratum = document.getElementById("stratum");
  var views = {};

  function each(selector, act) { Array.prototype.forEach.call(document.querySelectorAll(selector), act); }

  function chosen() { return select ? select.value : null; }

  function setTarget(view) {
    if (chosen() === null) { return; }
    try { view.signal("target", chosen()).runAsync(); } catch (error) { /* a figure without a choice of target */ }
  }

  function draw(key) {
    var holder = document.getElementById("live-" + key);
    var options = {
      mode: "vega-lite", renderer: "svg", ast: true,
      config: data.themes[dark.matches ? "dark" : "light"],
      logLevel: 1,
      tooltip: { theme: dark.matches ? "dark" : "light" },
      actions: false
    };
    if (views[key]) { views[key].finalize(); }
    holder.parentNode.classList.add("drawn");
    return window.vegaEmbed(holder, data.figures[key], options).then(function (result) {
      views[key] = result;
      setTarget(result.view);
    }).catch(function (error) {
      holder.parentNode.classList.remove("drawn");
      console.error("figure " + key, error);
    });
  }

  // One after the other, so that the page answers in between.
  function drawAll() {
    Object.keys(data.figures).reduce(function (before, key) {
      return before.then(function () { return draw(key); });
    }, Promise.resolve());
  }

  function plain(text) { return text.normalize("NFD").replace(/[\u0300-\u036f]/g, "").toLowerCase(); }

  function isOfTarget(row) { return chosen() === null || row.getAttribute("data-target") === chosen(); }

  function filterRows() {
    var wanted = plain(search.value.trim()), shown = 0, all = 0;
    each("tr[data-target]", function (row) { row.hidden = !isOfTarget(row); });
    each("#table-languages tbody tr", function (row) {
      if (row.hidden) { return; }
      all += 1;
      row.hidden = plain(row.cells[0].textContent).indexOf(wanted) < 0 ||
        (stratum.value !== "" && row.getAttribute("data-group") !== stratum.value);
      shown += row.hidden ? 0 : 1;
    });
    document.getElementById("shown").textContent = shown + " of " + all + " languages";
  }

  function sortValue(row, column) {
    var cell = row.cells[column];
    var value = cell.getAttribute("data-sort");
    return value === null ? cell.textContent.trim() : value === "" ? null : Number(value);
  }

  function sortBy(table, column, descending) {
    var body = table.tBodies[0];
    var rows = Array.prototype.map.call(body.rows, function (row, place) {
      return { row: row, value: sortValue(row, column), place: place };
    });
    rows.sort(function (a, b) {
      if (a.value === null || b.value === null) {
        return (a.value === null) - (b.value === null) || a.place - b.place;
      }
      var order = typeof a.value === "string" ? a.value.localeCompare(b.value, "en") : a.value - b.value;
      return (descending ? -order : order) || a.place - b.place;
    });
    rows.forEach(function (item) { body.appendChild(item.row); });
  }

  function makeSortable(table) {
    var heads = Array.prototype.slice.call(table.tHead.rows[0].cells);
    heads.forEach(function (head, column) {
      var button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.textContent = "";
      head.appendChild(button);
      button.addEventListener("click", function () {
        var descending = head.getAttribute("aria-sort") === "ascending";
        heads.forEach(function (other) { other.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        sortBy(table, column, descending);
      });
    });
  }

  function save(name, type, content) {
    var link = document.createElement("a");
    var blob = content instanceof Blob ? content : new Blob([content], { type: type });
    link.href = URL.createObjectURL(blob);
    link.download = (data.study + "-" + name).replace(/[^\w.-]+/g, "_");
    document.body.appendChild(link);
    link.click();
    link.remove();
    setTimeout(function () { URL.revokeObjectURL(link.href); }, 10000);
  }

  function quoted(value) {
    if (value === null) { return ""; }
    var text = String(value);
    return text === "" || /[",\r\n]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text;
  }

  // The same columns as in the files beside the page: exact numbers, intervals and languages in two columns.
  function cellValues(cell, kind) {
    if (kind === "interval" || kind === "language") { return JSON.parse(cell.getAttribute("data-parts")); }
    return kind === "number" ? [cell.getAttribute("data-sort") || null] : [cell.textContent];
  }

  function tableText(table) {
    var heads = Array.prototype.slice.call(table.tHead.rows[0].cells);
    var lines = [[].concat.apply([], heads.map(function (head) { return JSON.parse(head.getAttribute("data-names")); }))];
    Array.prototype.forEach.call(table.tBodies[0].rows, function (row) {
      lines.push([].concat.apply([], heads.map(function (head, column) {
        return cellValues(row.cells[column], head.getAttribute("data-kind"));
      })));
    });
    return lines.map(function (line) { return line.map(quoted).join(","); }).join("\n") + "\n";
  }

  // A figure as a file: in the light theme whatever the page's, with a title, of the target that is chosen.
  function saveFigure(key, format) {
    var spec = JSON.parse(JSON.stringify(data.figures[key]));
    var light = Object.assign({}, data.themes.light, { background: "white" });
    spec.title = { text: data.study + ": " + data.titles[key] };
    spec.width = data.widths[key];
    (spec.params || []).forEach(function (param) {
      if (param.name === "target" && chosen() !== null) {
        param.value = chosen();
        spec.title.subtitle = select.options[select.selectedIndex].textContent;
      }
    });
    if (format === "json") {
      save(key + ".vl.json", "application/json", JSON.stringify(Object.assign(spec, { config: light }), null, 2) + "\n");
      return Promise.resolve();
    }
    var options = { mode: "vega-lite", renderer: "svg", ast: true, config: light, logLevel: 1, actions: false };
    return window.vegaEmbed(document.createElement("div"), spec, options).then(function (result) {
      var made = format === "svg" ? result.view.toSVG() : result.view.toCanvas(2).then(function (canvas) {
        return new Promise(function (resolve) { canvas.toBlob(resolve, "image/png"); });
      });
      return made.then(function (content) {
        save(key + "." + format, format === "svg" ? "image/svg+xml" : "image/png", content);
        result.finalize();
      });
    });
  }

  // Without leave to write to the clipboard the text is selected, for the reader to copy.
  function copy(id, status) {
    var text = document.getElementById(id);
    function selectIt() {
      window.getSelection().selectAllChildren(text);
      status.textContent = "Selected: copy it with Ctrl+C or ⌘C.";
    }
    if (!navigator.clipboard) { selectIt(); return; }
    navigator.clipboard.writeText(text.textContent).then(function () { status.textContent = "Copied."; }, selectIt);
  }

  each("table.sortable", makeSortable);
  each("button[data-table]", function (button) {
    var name = button.getAttribute("data-table");
    button.addEventListener("click", function () {
      save(name + ".csv", "text/csv", tableText(document.getElementById("table-" + name)));
    });
  });
  each("button[data-figure]", function (button) {
    button.addEventListener("click", function () {
      saveFigure(button.getAttribute("data-figure"), button.getAttribute("data-format"));
    });
  });
  each("button[data-copy]", function (button) {
    button.addEventListener("click", function () { copy(button.getAttribute("data-copy"), button.nextElementSibling); });
  });
  search.addEventListener("input", filterRows);
  stratum.addEventListener("change", filterRows);
  if (select) {
    select.addEventListener("change", function () {
      filterRows();
      Object.keys(views).forEach(function (key) { setTarget(views[key].view); });
    });
    // Print shows the static figures, which have the first choice: let the tables show it too.
    window.addEventListener("beforeprint", function () {
      Array.prototype.forEach.call(select.options, function (option) { option.selected = option.defaultSelected; });
      select.dispatchEvent(new Event("change"));
    });
  }
  filterRows();
  dark.addEventListener("change", drawAll);
  // The static figures are painted first.
  requestAnimationFrame(function () { setTimeout(drawAll, 0); });
})();
