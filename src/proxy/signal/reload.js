// Reloads the page when Flipgate would serve it from another version. Clients get this file without comments and
// indentation, so that names are short:
//
// s  the script element       o  its data- attributes    c  fields that the user has changed
// own  the page's version     next  the version to reload for    t  a timer    es, live  the event stream, if one is used
(d=>{
const s=d.currentScript,o=s.dataset,c=new Set,on=addEventListener,
url=n=>new URL(n,s.src),
later=(f,ms)=>{
  clearTimeout(t);
  t=setTimeout(f,ms)
},
// A field has the focus, also inside a component, or was changed and is not empty.
busy=()=>{
  let f=d.activeElement;
  while(f?.shadowRoot) f=f.shadowRoot.activeElement;
  return f?.matches("input:not([type=button],[type=submit]),select,textarea,[contenteditable]")
   ||[...c].some(f=>f.isConnected&&f.value!=="")
},
// At most once for each version, and not at all if that cannot be remembered.
attempt=()=>{
  if(next&&busy()) later(attempt,1e3);
  else if(next)try{
    const k="flipgate "+next,kept=sessionStorage;
    if(!kept[k]) {
      kept[k]=1;
      location.reload()
    }
  }catch{}
},
see=(a,now)=>{
  const id=a.version;
  own||=id;
  if(now||id!=next) {
    next=id!=own&&id;
    later(attempt,now?0:Math.random()*a.spread_ms)
  }
},
poll=now=>fetch(url("version"),{cache:"no-store"}).then(r=>r.json()).then(a=>see(a,now)).catch(()=>{}),
listen=()=>{
  es=new EventSource(url("events"));
  es.onmessage=e=>see(JSON.parse(e.data));
  // Browsers give up a stream that was refused. Then the script polls.
  es.onerror=()=>es.readyState>1&&(live=0)
},
tick=()=>d.hidden||live||poll();
// The version is that of the page's own response, if that says it, or else the first one that is seen.
let own=o.version||performance.getEntriesByType("navigation")[0]?.serverTiming?.find(e=>e.name=="flipgate")?.description,
next,t,es,live="events" in o;
on("input",e=>c.add(e.composedPath()[0]),true);
on("reset",e=>c.forEach(f=>f.form==e.target&&c.delete(f)),true);
live&&listen();
poll();
setInterval(tick,Math.max(1,+o.interval||30)*1e3);
on("visibilitychange",tick);
on("pagehide",()=>es?.close());
// The page returns from the back/forward cache.
on("pageshow",e=>{
  if(e.persisted) {
    live&&listen();
    poll(1)
  }
})
})(document)
