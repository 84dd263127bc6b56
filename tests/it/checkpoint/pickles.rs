//! The pickle machine: every opcode it claims, sharing through the memo, numpy, and what it refuses.

use super::forge::Pickle;
use crate::need;
use crate::support::golden;
use proptest::prelude::*;
use stunetd::fault::{Code, Fault};
use stunetd::stunet::checkpoint::{Value, read_pickle};

/// Python-like text of a value.
fn show(value: Value) -> String {
    fn join(items: impl Iterator<Item = String>) -> String {
        items.collect::<Vec<_>>().join(", ")
    }
    if let Some(items) = value.items() {
        return format!("{{{}}}", join(items.map(|(k, v)| format!("{}: {}", show(k), show(v)))));
    }
    if let Some(rows) = value.elements() {
        return format!("[{}]", join(rows.map(show)));
    }
    if let Some(text) = value.as_str() {
        return format!("{text:?}");
    }
    if let Some(b) = value.as_bool() {
        return b.to_string();
    }
    if let Some(n) = value.as_i64() {
        return n.to_string();
    }
    if let Some(x) = value.as_f64() {
        return format!("{x:?}");
    }
    if value.kind() == "an array" {
        return format!("array({})", value.to_json(100).expect("small").to_string().replace(',', ", "));
    }
    value.kind().to_string()
}

fn read(bytes: &[u8]) -> Result<String, Code> {
    read_pickle(bytes).map(|g| show(g.root())).map_err(|e| Fault::from(e).code)
}

#[test]
fn every_opcode() {
    let cases: &[(&str, &[u8], &str)] = &[
        ("NONE", b"N.", "None"),
        ("NEWTRUE", b"\x88.", "true"),
        ("NEWFALSE", b"\x89.", "false"),
        ("INT", b"I-12\n.", "-12"),
        ("INT true", b"I01\n.", "true"),
        ("INT false", b"I00\n.", "false"),
        ("LONG", b"L123L\n.", "123"),
        ("LONG beyond 64 bits", b"L-99999999999999999999999L\n.", "an integer beyond 64 bits"),
        ("BININT", b"J\xfe\xff\xff\xff.", "-2"),
        ("BININT1", b"K\xff.", "255"),
        ("BININT2", b"M\x01\x02.", "513"),
        ("LONG1 empty", b"\x8a\x00.", "0"),
        ("LONG1", b"\x8a\x02\x00\xff.", "-256"),
        ("LONG1 of 8", b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f.", "9223372036854775807"),
        ("LONG1 of 9", b"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00.", "an integer"),
        ("LONG4", b"\x8b\x03\x00\x00\x00\x01\x02\x03.", "197121"),
        ("FLOAT", b"F-2.5e3\n.", "-2500.0"),
        ("BINFLOAT", b"G\x3f\xf8\0\0\0\0\0\0.", "1.5"),
        ("STRING", br#"S'a\'b\n\x41\\'"#, ""),
        ("BINSTRING", b"T\x02\0\0\0a\xe9.", "\"aé\""),
        ("SHORT_BINSTRING", b"U\x01z.", "\"z\""),
        ("UNICODE", b"Va\\u00e9\\n\n.", "\"aé\\\\n\""),
        ("BINUNICODE", b"X\x02\0\0\0\xc3\xa9.", "\"é\""),
        ("SHORT_BINUNICODE", b"\x8c\x01x.", "\"x\""),
        ("BINUNICODE8", b"\x8d\x01\0\0\0\0\0\0\0x.", "\"x\""),
        ("BINBYTES", b"B\x01\0\0\0x.", "bytes"),
        ("SHORT_BINBYTES", b"C\x01x.", "bytes"),
        ("BINBYTES8", b"\x8e\x01\0\0\0\0\0\0\0x.", "bytes"),
        ("BYTEARRAY8", b"\x96\x01\0\0\0\0\0\0\0x.", "bytes"),
        ("EMPTY_LIST, APPEND", b"]K\x01a.", "[1]"),
        ("LIST, APPENDS", b"(K\x01l(K\x02K\x03e.", "[1, 2, 3]"),
        ("EMPTY_TUPLE", b").", "[]"),
        ("TUPLE", b"(K\x01K\x02t.", "[1, 2]"),
        ("TUPLE1, 2, 3", b"K\x01\x85K\x02\x86K\x03K\x04\x87.", "[[[1], 2], 3, 4]"),
        ("EMPTY_DICT, SETITEM", b"}K\x01Ns.", "{1: None}"),
        ("DICT, SETITEMS", b"(K\x01Nd(K\x02NK\x03Nu.", "{1: None, 2: None, 3: None}"),
        ("EMPTY_SET, ADDITEMS", b"\x8f(K\x01K\x02\x90.", "[1, 2]"),
        ("FROZENSET", b"(K\x01\x91.", "[1]"),
        ("PUT, GET", b"K\x05p3\n0g3\n.", "5"),
        ("BINPUT, BINGET", b"K\x05q\x03\x30h\x03.", "5"),
        ("LONG_BINPUT, LONG_BINGET", b"K\x05r\x03\0\0\x01\x30j\x03\0\0\x01.", "5"),
        ("MEMOIZE", b"K\x05\x94K\x06\x94\x30\x30h\x01.", "6"),
        ("POP", b"K\x01K\x020.", "1"),
        ("POP of a mark", b"K\x01(0.", "1"),
        ("POP_MARK", b"K\x01(K\x02K\x031.", "1"),
        ("DUP", b"K\x012\x86.", "[1, 1]"),
        ("PROTO, FRAME", b"\x80\x04\x95\x02\0\0\0\0\0\0\0N.", "None"),
        ("GLOBAL, REDUCE", b"ccollections\nOrderedDict\n)R.", "{}"),
        ("STACK_GLOBAL", b"\x8c\x0bcollections\x8c\x0bOrderedDict\x93)R.", "{}"),
        ("OrderedDict of pairs", b"ccollections\nOrderedDict\n](K\x01\x88\x86K\x02\x89\x86e\x85R.", "{1: true, 2: false}"),
        ("BUILD of a dict", b"ccollections\nOrderedDict\n)R}\x8c\x01aNsb.", "{}"),
        ("torch.device", b"ctorch\ndevice\n\x8c\x04cuda\x85R.", "a device"),
        ("_codecs.encode", b"c_codecs\nencode\n\x8c\x01x\x8c\x06latin1\x86R.", "bytes"),
    ];
    for (name, bytes, wanted) in cases {
        if *name == "STRING" {
            let mut line = bytes.to_vec();
            line.extend_from_slice(b"\n.");
            assert_eq!(read(&line).as_deref(), Ok(r#""a'b\nA\\""#), "{name}");
            continue;
        }
        assert_eq!(read(bytes).as_deref(), Ok(*wanted), "{name}");
        // Every beginning of it ends too early: said so, no panic.
        for n in 1..bytes.len() {
            assert!(matches!(read(&bytes[..n]), Err(Code::CheckpointTruncated | Code::CheckpointMalformed)), "{name} cut at {n}");
        }
    }
}

#[test]
fn an_object_met_twice_is_one_object() {
    // l = []; d = {'a': l, 'b': l}; l.append(1) after it was stored and memoised
    assert_eq!(read(b"}(\x8c\x01a]q\x00\x8c\x01bh\x00K\x01auh\x00K\x02a0.").as_deref(), Ok(r#"{"a": [1, 2], "b": [1, 2]}"#));
    // A dict that is filled after it was put into a list.
    assert_eq!(read(b"}q\x01\x30]h\x01ah\x01K\x08Ns0.").as_deref(), Ok("[{8: None}]"));
    // A list that holds itself is read; as JSON it would have no end.
    let endless = read_pickle(b"]q\x00h\x00a.").expect("reads");
    assert_eq!(endless.root().to_json(1_000_000), None);
    // A list of two of a list of two of … has 2^40 leaves.
    let mut laughs = b"]q\x00".to_vec();
    laughs.extend(b"(h\x00h\x00lq\x00".repeat(40));
    laughs.push(b'.');
    assert_eq!(read_pickle(&laughs).expect("reads").root().to_json(1_000_000), None);
}

#[test]
fn numpy_scalars_and_arrays_of_both_numpy_generations() {
    for core in ["numpy.core", "numpy._core"] {
        let dtype = |code: &str, order: &str| {
            let mut p = Pickle { bytes: Vec::new() };
            p.global("numpy", "dtype")
                .str(code)
                .op(&[0x89, 0x88, 0x87])
                .op(b"R(K\x03")
                .str(order)
                .op(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb");
            p.bytes
        };
        let scalar = |code: &str, order: &str, bytes: &[u8]| {
            let mut p = Pickle::new(4);
            p.global(&format!("{core}.multiarray"), "scalar").op(&dtype(code, order));
            p.op(b"C").op(&[bytes.len() as u8]).op(bytes).op(b"\x86R.");
            read(&p.bytes)
        };
        for (code, order, bytes, wanted) in [
            ("f8", "<", 1.5f64.to_le_bytes().to_vec(), "1.5"),
            ("f8", ">", 1.5f64.to_be_bytes().to_vec(), "1.5"),
            ("f4", "<", 0.25f32.to_le_bytes().to_vec(), "0.25"),
            ("f2", "<", half::f16::from_f32(-2.0).to_le_bytes().to_vec(), "-2.0"),
            ("i8", "<", (-3i64).to_le_bytes().to_vec(), "-3"),
            ("i4", ">", (-3i32).to_be_bytes().to_vec(), "-3"),
            ("i1", "|", vec![0xff], "-1"),
            ("u2", "<", vec![0xff, 0xff], "65535"),
            ("u8", "<", vec![0xff; 8], "1.8446744073709552e19"),
            ("b1", "|", vec![1], "true"),
            ("U3", "<", vec![0; 12], "a numpy scalar"),
        ] {
            assert_eq!(scalar(code, order, &bytes).as_deref(), Ok(wanted), "{core} {code}{order}");
        }
        assert_eq!(scalar("f8", "<", &[0; 4]), Err(Code::CheckpointMalformed));

        // Protocols up to 4: _reconstruct, then the state.
        let array = |shape: &[u8], code: &str, fortran: bool, data: &[u8]| {
            let mut p = Pickle::new(4);
            p.global(&format!("{core}.multiarray"), "_reconstruct").global("numpy", "ndarray").op(b"K\0\x85C\x01b\x87R(K\x01(");
            shape.iter().for_each(|&n| {
                p.op(&[b'K', n]);
            });
            p.op(b"t").op(&dtype(code, "<")).op(if fortran { b"\x88" } else { b"\x89" });
            p.op(b"C").op(&[data.len() as u8]).op(data).op(b"tb.");
            read(&p.bytes)
        };
        let six: Vec<u8> = (0..6u8).collect();
        assert_eq!(array(&[6], "u1", false, &six).as_deref(), Ok("array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])"));
        assert_eq!(array(&[2, 3], "u1", false, &six).as_deref(), Ok("array([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])"));
        assert_eq!(array(&[2, 3], "u1", true, &six).as_deref(), Ok("array([[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]])"));
        assert_eq!(array(&[255, 255], "u1", false, &six), Err(Code::CheckpointMalformed));

        // Protocol 5: _frombuffer.
        let mut p = Pickle::new(5);
        p.global(&format!("{core}.numeric"), "_frombuffer").op(b"(\x96\x04\0\0\0\0\0\0\0\x01\0\x02\0").op(&dtype("i2", "<"));
        p.op(b"K\x02\x85\x8c\x01CtR.");
        assert_eq!(read(&p.bytes).as_deref(), Ok("array([1.0, 2.0])"));
    }
    // An array of objects is a list.
    let mut p = Pickle::new(4);
    p.global("numpy.core.multiarray", "_reconstruct").global("numpy", "ndarray").op(b"K\0\x85C\x01b\x87R(K\x01K\x02\x85");
    p.global("numpy", "dtype").str("O8").op(b"\x89\x88\x87R\x89](K\x01\x8c\x01aetb.");
    assert_eq!(read(&p.bytes).as_deref(), Ok(r#"[1, "a"]"#));
}

#[test]
fn plans_of_protocols_2_4_and_5_and_of_numpy_1_and_2_say_the_same() {
    let of = |name: &str| read_pickle(&std::fs::read(golden(name)?).ok()?).ok().map(|g| show(g.root()));
    let reference = need!(of("stunet/deep.model.pkl"), "deep.model.pkl is not in this clone");
    assert!(reference.contains(r#""current_spacing": array([3.0, 2.03642, 2.03642])"#), "{reference}");
    assert!(reference.contains(r#""percentile_99_5": 823.58"#), "{reference}");
    assert_eq!(of("stunet/deep_proto2.model.pkl").as_ref(), Some(&reference));
    assert_eq!(of("stunet/deep_numpy2_proto5.model.pkl").as_ref(), Some(&reference));
}

#[test]
fn what_would_run_something_is_refused_by_name() {
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("__builtin__", "exec"),
        ("subprocess", "Popen"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_device_tensor_from_numpy"),
        ("numpy", "load"),
        ("numpy.core.multiarray", "fromfile"),
        ("collections", "OrderedDict.fromkeys"),
        ("runpy", "_run_code"),
        ("torch.storage", "_load_from_bytes"),
    ] {
        let mut by_name = Pickle::new(2);
        by_name.global(module, name).str("id").op(b"\x85R.");
        let mut by_stack = Pickle::new(4);
        by_stack.str(module).str(name).op(b"\x93)R.");
        let mut instance = Pickle::new(0);
        instance.op(format!("(i{module}\n{name}\n.").as_bytes());
        for p in [by_name, by_stack, instance] {
            let error = read_pickle(&p.bytes).map(|_| ()).expect_err(name);
            assert!(error.to_string().contains(&format!("{module}.{name}")), "{error}");
            assert_eq!(Fault::from(error).code, Code::CheckpointForbidden);
        }
    }
    for (what, bytes) in [
        ("OBJ", &b"(ccollections\nOrderedDict\no."[..]),
        ("INST of an allowed class", b"(icollections\nOrderedDict\n."),
        ("NEWOBJ", b"ccollections\nOrderedDict\n)\x81."),
        ("NEWOBJ_EX", b"ccollections\nOrderedDict\n)}\x92."),
    ] {
        assert_eq!(read(bytes), Err(Code::CheckpointForbidden), "{what}");
    }
}

#[test]
fn nonsense_is_refused() {
    let cases: &[(&str, &[u8])] = &[
        ("an unknown opcode", b"\xff."),
        ("a protocol of the future", b"\x80\x06N."),
        ("STOP on an empty stack", b"."),
        ("POP below the bottom", b"0."),
        ("POP below a mark", b"K\x01(\x85."),
        ("SETITEMS without a mark", b"}K\x01Nu."),
        ("a key without a value", b"}(K\x01u."),
        ("APPEND to a tuple", b")K\x01a."),
        ("SETITEM in a list", b"]K\x01Ns."),
        ("BINGET of nothing", b"h\x07."),
        ("MEMOIZE of nothing", b"\x94."),
        ("a call of a number", b"K\x01)R."),
        ("a call without a tuple", b"ccollections\nOrderedDict\nNR."),
        ("arguments that do not fit", b"ccollections\nOrderedDict\nNN\x86R."),
        ("a state for a number", b"K\x01}b."),
        ("a dtype that is none", b"cnumpy\ndtype\n\x8c\x01?\x89\x88\x87R."),
        ("a persistent id in a plain pickle", b"NQ."),
        ("a text persistent id", b"Pid\n."),
        ("an extension code", b"\x82\x01."),
        ("an out-of-band buffer", b"\x97."),
        ("bad UTF-8", b"\x8c\x01\xff."),
        ("a surrogate", b"V\\ud800\n."),
        ("an integer that is none", b"I1x\n."),
        ("a string without quotes", b"Sabc\n."),
    ];
    for (what, bytes) in cases {
        assert_eq!(read(bytes), Err(Code::CheckpointMalformed), "{what}");
    }
}

/// Opcodes with plausible arguments, in any order.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let fixed: Vec<&'static [u8]> = vec![
        b"(",
        b"0",
        b"1",
        b"2",
        b"N",
        b"\x88",
        b"K\x07",
        b"\x8c\x01x",
        b"C\x08abcdefgh",
        b"]",
        b")",
        b"}",
        b"l",
        b"t",
        b"d",
        b"a",
        b"e",
        b"s",
        b"u",
        b"\x85",
        b"\x86",
        b"\x87",
        b"\x94",
        b"h\0",
        b"h\x01",
        b"q\0",
        b"q\x01",
        b"R",
        b"b",
        b"Q",
        b"\x93",
        b"\x8f",
        b"\x90",
        b"\x91",
        b"ccollections\nOrderedDict\n",
        b"cnumpy\ndtype\n",
        b"cnumpy\nndarray\n",
        b"cnumpy.core.multiarray\nscalar\n",
        b"cnumpy.core.multiarray\n_reconstruct\n",
        b"cnumpy.core.numeric\n_frombuffer\n",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"c_codecs\nencode\n",
        b"\x8c\x02f8",
        b"\x8c\x01<",
        b"(K\x01K\x02t",
    ];
    proptest::collection::vec(proptest::sample::select(fixed), 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// Whatever stands there: an answer, no panic.
    #[test]
    fn any_sequence_of_opcodes_and_any_bytes_are_answered(mut ops in pieces(), bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_pickle(&bytes);
        ops.push(b'.');
        if let Ok(graph) = read_pickle(&ops) {
            let _ = graph.root().to_json(10_000);
        }
    }
}

#[test]
fn limits_hold_before_memory_is_taken() {
    let repeat = |head: &[u8], body: &[u8], n: usize, tail: &[u8]| [head, &body.repeat(n), tail].concat();
    let huge = |op: u8, width: usize| [&[op][..], &u64::MAX.to_le_bytes()[..width], b"x."].concat();
    // A megabyte, encoded to bytes a thousand times.
    let mut copies = Pickle::new(2);
    copies.str(&"x".repeat(1 << 20)).op(b"q\0");
    for _ in 0..1000 {
        copies.op(b"0").global("_codecs", "encode").op(b"h\0\x8c\x06latin1\x86R");
    }
    copies.op(b".");
    // One list of a thousand pairs, made an OrderedDict often.
    let mut dicts = Pickle::new(2);
    dicts.op(b"](").op(&b"NN\x86".repeat(100_000)).op(b"eq\0");
    for _ in 0..1000 {
        dicts.op(b"0").global("collections", "OrderedDict").op(b"h\0\x85R");
    }
    dicts.op(b".");
    let cases: Vec<(&str, Vec<u8>, Code)> = vec![
        ("nested marks", repeat(b"", b"(", 2_000, b"."), Code::CheckpointLimit),
        ("objects", repeat(b"", b"N0", 2_000_001, b"N."), Code::CheckpointLimit),
        ("operations", repeat(b"N", b"2", 9_000_000, b"."), Code::CheckpointLimit),
        ("copies of a string", copies.bytes, Code::CheckpointLimit),
        ("copies of a list", dicts.bytes, Code::CheckpointLimit),
        ("arguments", repeat(b"ctorch\ndevice\n(", b"N", 100, b"tR."), Code::CheckpointLimit),
        ("BINUNICODE", huge(b'X', 4), Code::CheckpointLimit),
        ("BINUNICODE8", huge(0x8d, 8), Code::CheckpointLimit),
        ("BINBYTES", huge(b'B', 4), Code::CheckpointLimit),
        ("BYTEARRAY8", huge(0x96, 8), Code::CheckpointLimit),
        ("LONG4", huge(0x8b, 4), Code::CheckpointLimit),
        ("digits", repeat(b"L", b"9", 5_000, b"L\n."), Code::CheckpointLimit),
        ("FRAME", huge(0x95, 8), Code::CheckpointTruncated),
    ];
    for (what, bytes, code) in cases {
        assert_eq!(read(&bytes), Err(code), "{what}");
    }
    // Nesting a million deep is no problem: nothing recurses.
    assert!(read_pickle(&repeat(b")", b"\x85", 1_000_000, b".")).is_ok());
}
