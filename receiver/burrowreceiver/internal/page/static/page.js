'use strict';
// The server has rendered the page; this keeps it up to date. Names from outside are only ever set as text.
(() => {
  const page = document.body.dataset;
  const byId = id => document.getElementById(id);
  const expireAfter = Number(page.expire);
  const isOverview = !!byId('rows');
  const pageRows = 500;

  // The server's clock counts: the reader's may be wrong.
  let clockOffset = Date.parse(page.now) - Date.now();
  const now = () => Date.now() + clockOffset;

  // --- words, as in format.go

  const number = n => String(Math.trunc(n)).replace(/\B(?=(\d{3})+$)/g, ',');
  const counted = (n, one, many) => number(n) + ' ' + (n === 1 ? one : many);
  const words = seconds => {
    const s = Math.floor(Math.max(seconds, 0));
    const two = (big, bigUnit, small, smallUnit) => number(big) + ' ' + bigUnit + (small > 0 ? ' ' + small + ' ' + smallUnit : '');
    if (s < 60) return s + ' s';
    if (s < 3600) return two(Math.floor(s / 60), 'min', s % 60, 's');
    if (s < 86400) return two(Math.floor(s / 3600), 'h', Math.floor(s % 3600 / 60), 'min');
    return two(Math.floor(s / 86400), 'd', Math.floor(s % 86400 / 3600), 'h');
  };
  const age = at => (now() - at) / 1000;
  const clock = at => new Date(at).toLocaleTimeString('en-GB');
  const day = at => new Date(at).toLocaleDateString('en-US', {month: 'short', day: 'numeric'});

  const setText = (element, text) => { if (element.textContent !== text) element.textContent = text; };
  const setAttribute = (element, name, value) => { if (element.getAttribute(name) !== value) element.setAttribute(name, value); };

  // A time element says how it is to be written.
  const writeTime = element => {
    const at = Date.parse(element.dateTime);
    switch (element.dataset.as) {
      case 'ago': return setText(element, words(age(at)) + ' ago');
      case 'for': return setText(element, words(age(at)));
      default:
        if (!element.title) element.title = element.textContent;
        setText(element, day(at) + ' ' + clock(at));
    }
  };
  const writeTimes = root => root.querySelectorAll('time[data-as]').forEach(writeTime);
  const setTime = (parent, as, at) => {
    let element = parent.querySelector('time');
    if (!at) {
      if (element) element.remove();
      return;
    }
    if (!element) {
      element = document.createElement('time');
      element.dataset.as = as;
      parent.prepend(element);
    }
    setAttribute(element, 'datetime', at);
    writeTime(element);
  };

  // A segment of dots alone means another folder, escaped or not, so such names stand in the query.
  const groupPath = (cluster, group) => 'groups/' + (/^\.\.?$/.test(cluster) || /^\.\.?$/.test(group)
    ? '?' + new URLSearchParams({cluster, group}) : encodeURIComponent(cluster) + '/' + encodeURIComponent(group));
  const rowKey = (cluster, group) => JSON.stringify([cluster, group]);

  // --- what the server says

  const rows = new Map();
  let boot = '', version = -1, overview = null;

  const rank = status => ({OK: 0, NOTFOUND: 1, WARN: 2, ERR: 3, STOP: 4, STALL: 5, REWIND: 6}[status] ?? 1);
  const parsed = g => Object.assign(g, {
    key: rowKey(g.cluster, g.group), rank: rank(g.status), receivedAt: Date.parse(g.received),
    text: (g.group + '\n' + g.cluster).toLowerCase(),
    bad: g.partitions.warn + g.partitions.stop + g.partitions.stall + g.partitions.rewind + g.partitions.other,
  });

  let waiting = null; // the changes that come while all groups are fetched
  const fetchAll = async () => {
    if (waiting) return;
    waiting = [];
    try {
      const response = await fetch('api/v1/groups', {cache: 'no-store'});
      if (!response.ok) throw new Error(response.statusText);
      const all = await response.json();
      rows.clear();
      for (const g of all.groups) rows.set(rowKey(g.cluster, g.group), parsed(g));
      boot = all.boot;
      version = all.version;
      waiting.forEach(change);
    } catch {
      version = -1;
      lose();
    } finally {
      waiting = null;
    }
    render();
  };

  // change adds what an event tells to the rows, if they are of the version that it starts from.
  const change = e => {
    if (e.version <= version) return;
    if (e.from > version) { version = -1; return; }
    for (const g of e.changed) {
      const known = parsed(g);
      known.fresh = true;
      rows.set(known.key, known);
    }
    for (const [cluster, group] of e.gone || []) rows.delete(rowKey(cluster, group));
    version = e.version;
  };

  const take = (e, id, hello) => {
    clockOffset = Date.parse(e.overview.now) - Date.now();
    overview = e.overview;
    if (overview.karrot !== page.karrot) { location.reload(); return; } // another Karrot may have another page
    const same = id.split('-')[0] === boot;
    if (!isOverview) {
      groupChanged(e, hello);
      return;
    }
    if (hello && !(same && version === e.version)) { version = -1; }
    if (waiting) { waiting.push(e); return; }
    if (version >= 0) change(e);
    if (version < 0) fetchAll(); else render();
  };

  // --- the stream

  const live = byId('live'), liveText = byId('live-text');
  const staleAfter = 10, silentAfter = 20; // seconds; the server is silent for 15 at most
  let source = null, lastHeard = 0, retry = 1, timer = 0;

  const connect = () => {
    clearTimeout(timer);
    timer = 0;
    source = new EventSource(page.base + 'events');
    const on = hello => event => {
      lastHeard = Date.now();
      retry = 1;
      take(JSON.parse(event.data), event.lastEventId, hello);
      showLive();
    };
    source.addEventListener('hello', on(true));
    source.addEventListener('change', on(false));
    source.onerror = lose;
  };
  function lose() {
    if (source) source.close();
    source = null;
    if (!timer) timer = setTimeout(connect, retry * 1000 * (0.8 + 0.4 * Math.random()));
    retry = Math.min(retry * 2, 10);
    showLive();
  }
  // showLive says how old the page's knowledge is.
  function showLive() {
    const silent = (Date.now() - lastHeard) / 1000;
    if (source && lastHeard && silent > silentAfter) { lose(); return; }
    let state = 'live', text = 'LIVE';
    if (!source || !lastHeard) {
      const stale = lastHeard && silent > staleAfter;
      state = stale ? 'stale' : 'lost';
      text = stale ? 'STALE SINCE ' + clock(lastHeard) : lastHeard ? 'RECONNECTING' : retry > 4 ? 'NOT LIVE, RETRYING' : 'CONNECTING';
    }
    setAttribute(live, 'data-state', state);
    setText(liveText, text);
    document.body.classList.toggle('stale', state === 'stale');
  }

  // --- what the reader wants to see, which is in the address

  let query = {};
  const readQuery = () => {
    const p = new URLSearchParams(location.search);
    const sort = p.get('sort') || 'worst';
    query = {
      q: p.get('q') || '', cluster: p.get('cluster') || '', status: p.get('status') || '',
      sort: sort.replace(/^-/, ''), reverse: sort.startsWith('-'),
      open: p.get('open') ? rowKey(p.get('open_cluster') || '', p.get('open')) : '',
    };
  };
  const address = q => {
    const p = new URLSearchParams();
    const sort = (q.reverse ? '-' : '') + q.sort;
    if (q.q) p.set('q', q.q);
    if (q.cluster) p.set('cluster', q.cluster);
    if (q.status) p.set('status', q.status);
    if (sort !== 'worst') p.set('sort', sort);
    if (q.open) { const [cluster, group] = JSON.parse(q.open); p.set('open_cluster', cluster); p.set('open', group); }
    return './' + (p.size ? '?' + p : '');
  };
  const go = (changes, replace) => {
    query = {...query, ...changes};
    history[replace ? 'replaceState' : 'pushState'](null, '', address(query));
    limit = pageRows;
    render();
  };

  const unknown = -1;
  const start = r => r.incident && r.incident.start ? Date.parse(r.incident.start) : r.incident ? Infinity : NaN;
  const order = (a, b) => a < b ? -1 : a > b ? 1 : 0;
  const byName = (a, b) => order(a.cluster, b.cluster) || order(a.group, b.group);
  const worst = (a, b) => b.rank - a.rank || (b.max_time_lag ?? unknown) - (a.max_time_lag ?? unknown) || b.total_lag - a.total_lag || byName(a, b);
  const sorts = {
    worst, group: (a, b) => order(a.group, b.group), cluster: (a, b) => order(a.cluster, b.cluster),
    time_lag: (a, b) => (b.max_time_lag ?? unknown) - (a.max_time_lag ?? unknown), lag: (a, b) => b.total_lag - a.total_lag,
    trend: (a, b) => (b.total_lag_per_minute || 0) - (a.total_lag_per_minute || 0), partitions: (a, b) => b.bad - a.bad,
    complete: (a, b) => (a.complete ?? unknown) - (b.complete ?? unknown), received: (a, b) => a.receivedAt - b.receivedAt,
    incident: (a, b) => {
      const x = start(a), y = start(b);
      return isNaN(x) || isNaN(y) ? isNaN(x) - isNaN(y) : order(x, y);
    },
  };
  const is = (r, status) => ({'': true, trouble: r.rank > 1, err: r.rank >= 3, warn: r.rank === 2, notfound: r.status === 'NOTFOUND', ok: r.rank === 0}[status]);

  // --- the table

  const body = byId('rows');
  const template = isOverview && byId('row').content.firstElementChild;
  const elements = new Map(); // by key: the row, its parts, and the group that it shows
  let limit = pageRows;

  const statusClass = r => r.rank >= 3 ? 'err' : r.rank === 2 ? 'warn' : r.rank === 0 ? 'ok' : 'none';
  const badText = p => [[p.stop, 'STOP'], [p.stall, 'STALL'], [p.rewind, 'REWIND'], [p.warn, 'WARN'], [p.other, 'other']]
    .filter(([n]) => n > 0).map(([n, name]) => number(n) + ' ' + name).join(', ') || '0';
  const round = n => Math.floor(n + 0.5);
  const trendText = r => !r.trend || r.trend === 'steady' || r.total_lag_per_minute === null ? r.trend
    : r.trend + ' ' + number(round(Math.abs(r.total_lag_per_minute))) + '/min';
  const drawSpark = (svg, lags) => {
    const least = Math.min(...lags), most = Math.max(1, ...lags);
    const floor = most - least > 0.05 * most ? Math.max(0, 2 * least - most) : 0;
    svg.replaceChildren(...lags.map((lag, i) => {
      const bar = document.createElementNS('http://www.w3.org/2000/svg', 'rect');
      const height = Math.max(1, round((lag - floor) / (most - floor) * 20));
      const at = {x: 8 * (i + 5 - lags.length), y: 20 - height, width: 7, height};
      for (const name in at) bar.setAttribute(name, at[name]);
      return bar;
    }));
  };

  const makeRow = key => {
    const tr = template.cloneNode(true);
    const part = name => tr.querySelector('.' + name);
    const e = {
      tr, key, group: null, detail: null, badge: part('badge'), use: tr.querySelector('use'), status: tr.querySelector('.badge b'), toggle: part('toggle'),
      name: part('name'), cluster: part('cluster'), behind: part('c-behind'), lag: part('c-lag'), spark: part('spark'), trend: part('trend'),
      bad: tr.querySelector('.c-parts b'), of: part('of'), complete: part('c-complete'), incident: part('c-incident'), id: part('id'),
      heard: part('c-heard'), note: part('note'),
    };
    elements.set(key, e);
    return e;
  };

  const fillRow = (e, r) => {
    if (e.group === r) return;
    e.group = r;
    const status = statusClass(r);
    e.tr.className = 'row ' + status;
    if (r.fresh) { r.fresh = false; void e.tr.offsetWidth; e.tr.classList.add('fresh'); }
    e.badge.className = 'badge ' + status;
    setAttribute(e.use, 'href', '#i-' + status);
    setText(e.status, r.status);
    setText(e.name, r.group);
    setAttribute(e.name, 'href', groupPath(r.cluster, r.group));
    setAttribute(e.toggle, 'aria-label', 'Partitions of ' + r.group);
    setText(e.cluster, r.cluster);
    setText(e.behind, r.max_time_lag === null ? '' : words(r.max_time_lag));
    setText(e.lag, number(r.total_lag));
    drawSpark(e.spark, r.recent_total_lags);
    e.trend.className = 'trend ' + r.trend;
    setText(e.trend, trendText(r));
    setText(e.bad, badText(r.partitions));
    setText(e.of, r.partitions.total === null ? '' : 'of ' + number(r.partitions.total));
    setText(e.complete, r.complete === null ? 'not known' : Math.floor(r.complete * 100) + ' %');
    setTime(e.incident, 'for', r.rank > 1 ? r.incident && r.incident.start || r.status_since : null);
    setText(e.id, r.incident ? r.incident.id.slice(0, 8) : '');
    setAttribute(e.id, 'title', r.incident ? r.incident.id : '');
    setTime(e.heard, 'ago', r.received);
  };

  const noteAge = e => {
    const r = e.group, seconds = age(r.receivedAt);
    const [kind, note] = seconds > 0.8 * expireAfter ? ['expiring', 'expires soon']
      : r.usual_interval !== null && seconds > Math.max(2 * r.usual_interval, 10) ? ['late', 'late'] : ['', ''];
    const name = 'c-heard num ' + kind;
    if (e.heard.className !== name) e.heard.className = name;
    setText(e.note, note);
  };

  // showDetail keeps the partitions of the open row below it. The server renders them.
  const showDetail = (e, isOpen) => {
    setAttribute(e.toggle, 'aria-expanded', String(isOpen));
    e.tr.classList.toggle('open', isOpen);
    if (!isOpen) {
      if (e.detail) e.detail.remove();
      e.detail = null;
      return;
    }
    if (!e.detail) {
      e.detail = document.createElement('tr');
      e.detail.className = 'detail';
      setAttribute(e.detail, 'role', 'row');
      const cell = e.detail.insertCell();
      cell.colSpan = 10;
      setAttribute(cell, 'role', 'cell');
      cell.textContent = 'Loading the partitions';
      e.shows = null;
    }
    if (e.shows === e.group || e.loading) return;
    const wanted = e.group;
    e.loading = true;
    loadPart(groupPath(wanted.cluster, wanted.group), 'partitions').then(part => {
      if (e.detail && part) replacePart(e.detail.firstElementChild, part);
      e.shows = wanted;
    }).catch(() => {}).finally(() => { e.loading = false; });
  };

  // loadPart fetches a page and takes one element from it; null if it is not there.
  const loadPart = async (path, id) => {
    const response = await fetch(path, {headers: {Accept: 'text/html'}, cache: 'no-store'});
    if (!response.ok && response.status !== 404) throw new Error(response.statusText);
    const loaded = new DOMParser().parseFromString(await response.text(), 'text/html').getElementById(id);
    return loaded && document.adoptNode(loaded);
  };
  // replacePart puts an element where the present ones are, and keeps what was scrolled and focused.
  const replacePart = (parent, part) => {
    const place = () => [...parent.querySelectorAll('.scroll')];
    const scrolled = place().map(e => e.scrollLeft), focused = place().indexOf(document.activeElement);
    parent.replaceChildren(part);
    writeTimes(part);
    place().forEach((e, i) => {
      e.scrollLeft = scrolled[i] || 0;
      if (i === focused) e.focus({preventScroll: true});
    });
  };

  const render = () => {
    if (version < 0 || !overview) return;
    const text = query.q.toLowerCase();
    const list = [];
    for (const r of rows.values()) {
      if ((!query.cluster || r.cluster === query.cluster) && is(r, query.status) && (!text || r.text.includes(text))) list.push(r);
    }
    const compare = sorts[query.sort] || worst, sign = query.reverse ? -1 : 1;
    list.sort((a, b) => sign * compare(a, b) || worst(a, b));
    const shown = list.slice(0, limit);

    const focused = document.activeElement;
    const used = new Set();
    let at = body.firstElementChild;
    const put = element => {
      if (element === at) at = at.nextElementSibling; else body.insertBefore(element, at);
    };
    for (const r of shown) {
      const e = elements.get(r.key) || makeRow(r.key);
      used.add(r.key);
      fillRow(e, r);
      noteAge(e);
      const isOpen = query.open === r.key;
      showDetail(e, isOpen);
      const [cluster, group] = [r.cluster, r.group];
      setAttribute(e.toggle, 'href', address({...query, open: isOpen ? '' : rowKey(cluster, group)}));
      setAttribute(e.cluster, 'href', address({...query, cluster, open: ''}));
      put(e.tr);
      if (e.detail) put(e.detail);
    }
    while (at) { const next = at.nextElementSibling; at.remove(); at = next; }
    for (const key of elements.keys()) if (!used.has(key)) elements.delete(key);
    // Moving an element takes its focus away.
    if (focused !== document.activeElement && focused.isConnected) focused.focus({preventScroll: true});

    renderOverview(list.length, shown.length);
    page.rendered = version;
  };

  const renderOverview = (matched, shown) => {
    const c = overview.groups;
    byId('empty').hidden = c.total > 0;
    byId('list').hidden = c.total === 0;
    const [big, line, breakdown, mood] = c.total === 0 ? ['0', 'groups', '', 'none']
      : c.trouble === 0 && c.ok === c.total ? [number(c.total), c.total === 1 ? 'group is OK' : 'groups, all OK', 'None is in trouble', 'ok']
      : c.trouble === 0 ? ['0', 'groups in trouble', number(c.ok) + ' OK, ' + number(c.notfound) + ' NOTFOUND', 'ok']
      : [number(c.trouble), c.trouble === 1 ? 'group in trouble' : 'groups in trouble',
        number(c.err) + ' ERR, ' + number(c.warn) + ' WARN, of ' + counted(c.total, 'group', 'groups'), c.err > 0 ? 'err' : 'warn'];
    byId('hero').className = 'hero ' + mood;
    setText(byId('headline').firstElementChild, big);
    setText(byId('headline').lastElementChild, line);
    setText(byId('breakdown'), breakdown);
    document.title = c.trouble ? '(' + c.trouble + ') Karrot' : 'Karrot';
    setAttribute(byId('icon'), 'href', c.trouble ? 'static/icon-trouble.svg' : 'static/icon.svg');

    let most = null;
    for (const r of rows.values()) {
      if (r.max_time_lag !== null && (!most || r.max_time_lag > most.max_time_lag || r.max_time_lag === most.max_time_lag && worst(r, most) < 0)) most = r;
    }
    const link = byId('furthest-group');
    setText(byId('furthest'), most ? words(most.max_time_lag) : 'not known');
    link.hidden = !most || most.max_time_lag === 0;
    setText(link, link.hidden ? '' : most.group);
    setAttribute(link, 'href', link.hidden ? './' : groupPath(most.cluster, most.group));

    const burrow = byId('burrow'), last = overview.last_notification;
    const value = burrow.querySelector('.value');
    if (last && !value.querySelector('time')) value.replaceChildren();
    setTime(value, 'ago', last);
    if (!last) setText(value, 'never');
    renderBurrow();

    const refused = overview.refused.reduce((sum, r) => sum + r.count, 0);
    byId('refused').className = 'tile' + (refused ? ' bad' : '');
    setText(byId('refused-count'), number(refused));
    setText(byId('refused-text'), overview.refused.map(r => r.outcome + ' ' + number(r.count)).join(', ') || 'since Karrot started');
    const refusal = overview.last_refusal;
    byId('refusal').hidden = !refusal;
    setTime(byId('refusal-when'), 'clock', refusal && refusal.at);
    setText(byId('refusal-text'), refusal ? refusal.outcome + ': ' + refusal.text : '');
    setText(byId('fill'), number(c.total) + ' of ' + counted(overview.max_groups, 'group', 'groups') + ' and ' +
      number(overview.partitions) + ' of ' + counted(overview.max_partitions, 'partition', 'partitions'));

    setText(byId('shown'), shown < matched ? number(shown) + ' of ' + number(matched) + ' groups shown'
      : matched < c.total ? number(matched) + ' of ' + number(c.total) + ' groups match' : counted(c.total, 'group', 'groups'));
    byId('more').hidden = shown >= matched;
    for (const chip of document.querySelectorAll('.chip')) {
      const status = chip.dataset.status;
      setText(chip.lastElementChild, number(c[status || 'total']));
      setAttribute(chip, 'href', address({...query, status, open: ''}));
      if (status === query.status) setAttribute(chip, 'aria-current', 'true'); else chip.removeAttribute('aria-current');
    }
    for (const link of document.querySelectorAll('[data-sort]')) {
      const sort = link.dataset.sort, is = sort === query.sort;
      const down = !['group', 'cluster', 'complete'].includes(sort);
      if (is) setAttribute(link.parentElement, 'aria-sort', down !== query.reverse ? 'descending' : 'ascending'); else link.parentElement.removeAttribute('aria-sort');
      setAttribute(link, 'href', address({...query, sort, reverse: is && !query.reverse}));
    }
    const select = byId('cluster'), names = overview.clusters;
    if (query.cluster && !names.includes(query.cluster)) names.push(query.cluster);
    if (JSON.stringify([...select.options].slice(1).map(o => o.value)) !== JSON.stringify(names)) {
      select.replaceChildren(select.options[0], ...names.map(name => new Option(name, name)));
    }
    select.value = query.cluster;
    if (byId('q').value !== query.q) byId('q').value = query.q;
  };

  const renderBurrow = () => {
    const last = overview.last_notification, silent = last ? age(Date.parse(last)) : 0;
    const [kind, text] = !last ? ['bad', 'none since Karrot started']
      : silent > expireAfter ? ['bad', 'Burrow is silent, or does not reach Karrot']
      : silent > expireAfter / 2 ? ['late', 'Burrow is quiet'] : ['good', 'Burrow is notifying'];
    byId('burrow').className = 'tile ' + kind;
    setText(byId('burrow-text'), text);
  };

  // --- the page of one group

  let loading = false, again = false;
  const groupChanged = async (e, hello) => {
    const isIt = g => g.cluster === page.cluster && g.group === page.group;
    const gone = (e.gone || []).some(([cluster, group]) => isIt({cluster, group}));
    if (!page.group || !(hello || gone || e.changed.some(isIt))) return;
    if (loading) { again = true; return; }
    loading = true;
    try {
      do {
        again = false;
        const part = await loadPart(location.href, 'group');
        byId('lost').hidden = !!part;
        if (part) {
          const old = byId('group'), holder = document.createElement('div');
          old.replaceWith(holder);
          holder.append(old);
          replacePart(holder, part);
          holder.replaceWith(part);
          document.title = part.querySelector('.badge b').textContent + ' ' + page.group + ', Karrot';
        }
      } while (again);
    } catch {
      lose();
    } finally {
      loading = false;
    }
  };

  // --- what the reader does

  const listen = () => {
    document.querySelectorAll('.js').forEach(e => { if (e.id !== 'more') e.hidden = false; });
    document.querySelectorAll('.still').forEach(e => { e.hidden = true; });
    // Links that only change the address are followed here, in place.
    document.addEventListener('click', event => {
      const link = event.target.closest('a[href]');
      if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
      if (!link.matches('.chip, .cluster, .toggle, [data-sort]') || version < 0) return;
      event.preventDefault();
      history.pushState(null, '', link.href);
      limit = pageRows;
      readQuery();
      render();
    });
    byId('q').addEventListener('input', event => go({q: event.target.value}, true));
    byId('cluster').addEventListener('change', event => go({cluster: event.target.value}));
    byId('more').addEventListener('click', () => { limit += pageRows; render(); });
    // Up and down go from row to row, on the buttons that open them.
    body.addEventListener('keydown', event => {
      const step = {ArrowDown: 1, ArrowUp: -1}[event.key];
      if (!step || !event.target.matches('.toggle')) return;
      const toggles = [...body.querySelectorAll('.toggle')];
      const next = toggles[toggles.indexOf(event.target) + step];
      if (next) { next.focus(); event.preventDefault(); }
    });
    window.addEventListener('popstate', () => { readQuery(); render(); });
  };

  setInterval(() => {
    writeTimes(document);
    if (isOverview && overview) {
      elements.forEach(noteAge);
      renderBurrow();
    }
    showLive();
  }, 1000);
  document.addEventListener('visibilitychange', showLive);

  writeTimes(document);
  if (isOverview) {
    readQuery();
    byId('q').value = query.q;
    listen();
    connect();
  } else if (page.group) {
    connect();
  } else {
    live.hidden = true;
  }
  if (isOverview || page.group) showLive();
})();
